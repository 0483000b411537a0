"""The version of this package, for where reading its metadata is too slow or impossible."""

from __future__ import annotations

# The same as in pyproject.toml; a test compares them. A zipped or frozen copy has no metadata, and
# importing importlib.metadata takes a sixth of the time in which a known model starts.
VERSION = "0.1.0"
