"""The ``qdrant-embed`` command: prepare models, store documents, query them.

::

    qdrant-embed models                 # known models: dimension, length, licence, prefixes
    qdrant-embed models NAME            # all facts about one, and what will be run of it
    qdrant-embed pull NAME              # download, verify and compile; also: export NAME DIR
    qdrant-embed compile DIR --out DIR  # compile the model in a folder
    qdrant-embed verify [NAME or DIR]   # check files against their digests
    qdrant-embed cache list             # also: cache clear [NAME]
    qdrant-embed add --path notes.db --collection notes notes.jsonl   # or .csv, .txt, -; or --url
    qdrant-embed query --path notes.db --collection notes "question" --where '{"lang": "en"}'
    qdrant-embed add --url https://host:6333 --collection notes notes.csv --metadata-field year:int
    qdrant-embed add --path notes.db --collection notes notes.parquet   # .arrow, a folder, .csv.gz
    qdrant-embed export-points notes --path notes.db --to points.parquet
    qdrant-embed migrate --path notes.db --collection notes --model NAME --to notes-new

Each command accepts ``--json``.

Exit codes: 0 success, 1 failure (the reason is on stderr), 2 wrong usage, 130 interrupted.

A server that cannot be reached ends a command at once, in one line that says what to set; once a
command has begun, it waits for a server that restarts. What the encoding of the output lacks is
printed as escapes.

Arguments enter in `main`; `models` and `documents` run the commands and return an `Answer`, which
`main` prints. `database` opens what they work on, and `records` reads their files.
"""
