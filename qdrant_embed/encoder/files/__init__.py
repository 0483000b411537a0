"""A name to verified files: hub, packages, folders, the cache folder, weights.

In comes the name of a model, out come a folder of files that were checked, and the tensors in
them. `hub` alone talks to a model hub; all that is kept lies below `cache.cache_folder`.
"""
