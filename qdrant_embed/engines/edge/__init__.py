"""The embedded engine: databases in a folder, on ``qdrant-edge``, the core of Qdrant's server.

What a ``qdrant_client`` client is asked enters at `database`, as methods of its ``QdrantBase``;
`conversion` turns it into what one `shard` understands, and back. `folder` knows what is where on
the disk. None of these may be imported where the extra ``edge`` is not installed.
"""
