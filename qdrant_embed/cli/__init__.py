"""The ``qdrant-embed`` command: models, ready before they are needed; documents in, answers out.

Arguments enter in `main`; `models` and `documents` each have their commands and give an `Answer`,
which `main` prints.
"""
