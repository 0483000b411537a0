"""How a learned sparse model weighs terms, in documents and in queries."""

from __future__ import annotations

from typing import Literal, TypeAlias

# of a term's largest logit x: log(1 + relu(x)), or the same logarithm of that again
TermWeighting: TypeAlias = Literal["log", "log_log"]
