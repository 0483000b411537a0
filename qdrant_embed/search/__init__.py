"""A query's texts and options to one request; found points to results."""
