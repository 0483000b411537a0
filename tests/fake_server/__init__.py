"""Qdrant servers on loopback, behind which is a local database.

`serving.py` starts them and holds what tests set and see. A request enters through `rest.py` or
`grpc.py`, which read it as Qdrant's clients write it and write the answer as a server does.
`node.py` carries it out, on the local database; what a server does and a local database does not,
it does itself. `rules.py` says what a server refuses, and with which words; `faults.py` says how
a request can fail. What a real server answers is in `../fixtures/server/`.
"""
