"""From a query's texts and options to a request, and from the points it finds to hits.

Texts and options enter in `search.answer`; lists of `QueryResponse` leave it.
"""
