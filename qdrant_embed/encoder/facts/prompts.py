"""What is put before texts: a caller's choice among a model's prefixes, prompts and tasks."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from qdrant_embed.encoder.facts.spec import ModelSpec
from qdrant_embed.errors import InputError, check_prefix, check_str, check_unicode

# How instruction-tuned models state a task before a query: KaLM, E5-instruct, GTE, Qwen3 (which
# has no space after the colon), BGE's Gemma, and EmbeddingGemma.
_INSTRUCTIONS = (
    ("Instruct: ", " \n Query: "),
    ("Instruct: ", "\nQuery: "),
    ("Instruct: ", "\nQuery:"),
    ("<instruct>", "\n<query>"),
    ("task: ", " | query: "),
)
# of the tasks that a model has weights for: those of documents and queries, and the default
RETRIEVAL, DEFAULT_ADAPTER = "retrieval", "retrieval.passage"


@dataclass(frozen=True)
class PromptChoice:
    """What a caller wants before texts; ``None`` is what the model's own files say.

    Attributes:
        query_prefix: put before every query.
        document_prefix: put before every document.
        query_prompt: name of the model's prompt that is put before every query instead.
        document_prompt: likewise before every document.
        task: what an instruction-tuned model is told to do with a query, in place of its default.

    Raises:
        InputError: if one is of a wrong kind, or two exclude each other.
    """

    query_prefix: str | None = None
    document_prefix: str | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        for option in ("query_prefix", "document_prefix", "task"):
            text = getattr(self, option)
            if text is not None:
                check_prefix(option, text)
                check_unicode(option, text)
        if self.task is not None and not self.task.strip():
            raise InputError("task is empty; say what to search for, or leave it out")
        for option in ("query_prompt", "document_prompt"):
            if getattr(self, option) is not None:
                check_str(option, getattr(self, option))
        for options in (
            ("query_prefix", "query_prompt", "task"),
            ("document_prefix", "document_prompt"),
        ):
            given = [option for option in options if getattr(self, option) is not None]
            if len(given) > 1:
                raise InputError(f"pass only one of {', '.join(given)}: each sets the same prefix")

    def with_prefixes(self, query: str | None, document: str | None) -> PromptChoice:
        """Return this choice with other prefixes; ``None`` keeps one."""
        choice = self
        if query is not None:
            choice = replace(choice, query_prefix=query, query_prompt=None, task=None)
        if document is not None:
            choice = replace(choice, document_prefix=document, document_prompt=None)
        return choice

    def without_task(self) -> PromptChoice:
        """Return this choice without a task."""
        return replace(self, task=None)

    def of(self, spec: ModelSpec) -> ModelSpec:
        """Return a model's facts with the prefixes that are chosen here.

        Raises:
            InputError: if the model has no such prompt, or takes no task.
        """
        query, document = self.query_prefix, self.document_prefix
        if self.query_prompt is not None:
            query = _prompt(spec, "query_prompt", self.query_prompt)
        elif self.task is not None:
            query = _instruction(spec, self.task)
        if self.document_prompt is not None:
            document = _prompt(spec, "document_prompt", self.document_prompt)
        return spec.with_prefixes(query, document)


def _prompt(spec: ModelSpec, option: str, name: str) -> str:
    if name in spec.prompts:
        return spec.prompts[name]
    near = difflib.get_close_matches(name, spec.prompts, n=1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    known = ", ".join(map(repr, spec.prompts))
    raise InputError(
        f"{option}={name!r:.80}, but {spec.name} has "
        + (f"no such prompt{meant}: it has {known:.500}" if known else "no prompts with names")
    )


def _instruction(spec: ModelSpec, task: str) -> str:
    """Return the prefix of queries with another task in it."""
    prefix = spec.query_prefix
    for before, after in _INSTRUCTIONS:
        if prefix.startswith(before) and prefix.endswith(after):
            made = before + task.strip() + after
            check_prefix("task, with the words around it,", made)
            return made
    raise InputError(
        f"task={task!r:.80}, but {spec.name} is not known to take a task: its queries have the "
        f"prefix {prefix!r:.80}, not one like 'Instruct: ...\\nQuery: '. To set the whole prefix, "
        "pass query_prefix"
    )
