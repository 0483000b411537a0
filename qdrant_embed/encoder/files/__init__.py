"""A name to verified files: hub, packages, folders, the cache, weights."""
