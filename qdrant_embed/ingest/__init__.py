"""Documents as given to points; one `add` on its way and its account."""
