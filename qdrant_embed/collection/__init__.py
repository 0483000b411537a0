"""One collection: its stamp, its vectors and their encoders, its options at creation.

`settings.ModelSettings` makes a `Collection` for each call of a client; flows read it, prepare it
and get its `CollectionVectors`.
"""
