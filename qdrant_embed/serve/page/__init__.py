"""The page at ``/``: its files (`files/`), their routes, the fields that it makes filters of."""
