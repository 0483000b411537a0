"""The HTTP service: requests in, OpenAI's shapes out; models and a database that programs share.

`app.py` has the routes; `door.py` lets requests in; `batching.py` encodes those of one moment
together; `database.py` is the collections.
"""
