"""The ``qdrant-embed`` command: models, ready before they are needed; documents in, answers out.

::

    qdrant-embed models                 # known models: dimension, length, licence, prefixes
    qdrant-embed pull NAME              # download, check and compile; also: export NAME DIR
    qdrant-embed compile DIR --out DIR  # compile the model in a folder
    qdrant-embed verify [NAME or DIR]   # check files against their digests
    qdrant-embed cache list             # also: cache clear [NAME]
    qdrant-embed add --path notes.db --collection notes notes.jsonl   # also .csv, .txt, -; or --url
    qdrant-embed query --path notes.db --collection notes "question" --where '{"lang": "en"}'
    qdrant-embed migrate --path notes.db --collection notes --model NAME --to notes-new

Each command accepts ``--json``.

Exit codes: 0 done, 1 failed (the reason is on stderr), 2 wrong usage, 130 interrupted.
"""
