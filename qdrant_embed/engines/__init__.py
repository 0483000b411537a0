"""The engines behind a client: what each needs, and what its errors mean.

A client's database object enters `registry.engine_of`; an `Engine` leaves it.
"""
