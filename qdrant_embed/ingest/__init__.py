"""From documents as users pass them to points, and the record of what an `add` has stored.

Documents enter in `adding.add_documents`; points leave through the collection's requests.
"""
