"""Makers of hostile stamps: what somebody else may have written into a collection's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMIT = "f" * 40  # of nobody


def paths(folder: Path) -> dict[str, str]:
    """Return the ways to write the path of `folder`, whose last two parts are a hub's name.

    The process works in the folder two levels up, which is also its home.
    """
    short = "/".join(folder.parts[-2:])
    return {
        "absolute": str(folder),
        "with a point": f"./{short}",
        "up and down": f"{short.partition('/')[0]}/../{short}",
        "home": f"~/{short}",
        "another home": f"~root/{short}",
        "doubled slash": short.replace("/", "//"),
        "slash at the end": f"{short}/",
        "URL": folder.as_uri(),
        "UNC": rf"\\localhost\share\{short}",
        "UNC with slashes": f"//localhost/share/{short}",
        "device": rf"\\?\{folder}",
        "backslashes": short.replace("/", "\\"),
        "drive": f"C:{short}",
        "NUL": f"{short}\0",
        "line": f"{short}\n",
        "variable": "$HOME/model",
        "stars": "*/*",
        "up": "../..",
        "up in a name": "a/..",
        "nothing": "",
        "blank": " ",
        "surrogate": "\ud800/model",
        "steering": "\x1b[31m/model",
        "long": f"a/{'b' * 4000}",
    }


_OF_BOTH: Mapping[str, dict[str, Any]] = {
    "digest of others": {"weights_sha256": "0" * 64},
    "digest of another tokenizer": {"tokenizer_sha256": "0" * 64},
    "digest is words": {"weights_sha256": "any"},
    "digest of megabytes": {"weights_sha256": "0" * 3_000_000},
    "revision of nobody": {"revision": COMMIT, "weights_sha256": "0" * 64},
    "revision of a proposal": {"revision": "refs/pr/1", "weights_sha256": "0" * 64},
    "revision is a path": {"revision": "../../main", "weights_sha256": "0" * 64},
    "revision of megabytes": {"revision": "a" * 3_000_000},
    "name of megabytes": {"model": f"a/{'b' * 3_000_000}"},
    "tokens: none": {"max_tokens": 0},
    "tokens: huge": {"max_tokens": 10**30},
    "tokens: words": {"max_tokens": "many"},
}


def changes() -> dict[str, dict[str, Any]]:
    """Return changes of a sound stamp, by what is wrong with them."""
    return {
        **_OF_BOTH,
        "version: 2": {"version": 2},
        "prefix of megabytes": {"query_prefix": "x" * 10_000_000},
        "document prefix of megabytes": {"document_prefix": "x" * 10_000_000},
        "prefix just too long": {"query_prefix": "x" * ((1 << 14) + 1)},
        "prefix with a surrogate": {"query_prefix": "\ud800"},
        "dimension: none": {"dimension": 0},
        "dimension: negative": {"dimension": -1},
        "dimension: huge": {"dimension": 10**30},
        "overlap: negative": {"overflow": "mean", "overlap": -1},
        "overlap: all": {"overflow": "mean", "overlap": 10**9},
        "overflow: unknown": {"overflow": "explode"},
        "vector of another": {"vector_name": "gone"},
        "a sparse model": {"model": "prithivida/Splade_PP_en_v1"},
    }


def sparse_changes() -> dict[str, dict[str, Any]]:
    """Return changes of the part of a stamp that is about sparse vectors."""
    bm25 = {"model": "Qdrant/bm25", "weights_sha256": None}
    return {
        **_OF_BOTH,
        "terms: none": {"max_terms": 0},
        "BM25 not a number": bm25 | {"k": "nan"},
        "BM25 infinite": bm25 | {"k": 1e999},
        "BM25 of no language": bm25 | {"language": "../klingon"},
        "a dense model": {"model": "BAAI/bge-small-en-v1.5"},
    }


def late_changes() -> dict[str, dict[str, Any]]:
    """Return changes of the part of a stamp that is about the vectors of tokens."""
    return {
        **_OF_BOTH,
        "dimension: none": {"dimension": 0},
        "dimension: huge": {"dimension": 10**30},
        "a dense model": {"model": "BAAI/bge-small-en-v1.5"},
        "a sparse model": {"model": "Qdrant/bm25"},
    }
