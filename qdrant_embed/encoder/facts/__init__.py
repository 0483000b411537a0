"""What a model's files and the catalog say of it."""
