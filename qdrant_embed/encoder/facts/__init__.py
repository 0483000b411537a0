"""What a model's files and the catalog say about it.

In come the folder of a model or a name, out come a `spec.ModelSpec`, the architecture's config,
and the names of the files that are needed. JSON is read here; weights are not.
"""
