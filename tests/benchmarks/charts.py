"""The figures in ``charts/encoder.json``, drawn as the pictures beside it.

    python tests/benchmarks/charts.py

``encoder.py --charts`` measures, writes that file and draws; a test holds the pictures to the
file. All colours are legible on white and on black, because a page's theme need not be that of the
system, which is all that a picture can ask for.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from results import Results

FOLDER = Path(__file__).parent / "charts"
FIGURES = FOLDER / "encoder.json"

WIDTH, MARGIN, NAMES, LABELS = 760, 12, 190, 184  # pixels
BAR, GAP = 16, 5
TEXT, PEER, OWN = "#7a7a7a", "#9a9a9a", "#e0433a"
CAPTION_WIDTH = 112  # letters in one line


@dataclass(frozen=True)
class Bar:
    """One encoder's value, and what is written behind it."""

    name: str
    value: float
    label: str


@dataclass(frozen=True)
class Group:
    """Bars on one scale, from 0 to the longest."""

    title: str
    bars: list[Bar]


@dataclass(frozen=True)
class Value:
    """Where in the table a group's values are, their unit, and the ratio that belongs to them."""

    title: str
    figure: str
    key: str
    unit: str
    ratio: str = "ratio"


def main() -> None:
    """Draws the figures that are checked in."""
    draw(Results.read(FIGURES))


def draw(results: Results, folder: Path = FOLDER) -> None:
    """Writes each of `pictures` into `folder`."""
    for name, text in pictures(results).items():
        (folder / name).write_text(text)


def pictures(results: Results) -> dict[str, str]:
    """SVG by the name of its file."""
    shown = names(results)
    singly = {encoder: name for encoder, name in shown.items() if encoder != "fastembed-32"}
    bulk = [
        Value(_corpus_title(results, corpus), corpus, "tokens/s", "tokens/s")
        for corpus in results.corpora
    ]
    latency = [
        Value("median, idle machine", "query", "p50 ms", "ms"),
        Value("99th percentile, idle machine", "query", "p99 ms", "ms", "p99 ratio"),
        Value("median, one core busy", "busy query", "p50 ms", "ms"),
        Value("99th percentile, one core busy", "busy query", "p99 ms", "ms", "p99 ratio"),
    ]
    memory = Value(_corpus_title(results, "mixed"), "peak MB", "median", "MB")
    better = f"x: times better than {shown['fastembed']} with its defaults, same weights, same run."
    texts = results.table["int8"]["fidelity"]["texts"]
    charts = {
        "throughput.svg": (
            "Throughput (more is better)",
            [_group(value, shown, results) for value in bulk],
            better,
        ),
        "latency.svg": (
            "Time for one query (less is better)",
            [_group(value, singly, results) for value in latency],
            better,
        ),
        "memory.svg": (
            "Peak memory of a new process (less is better)",
            [_group(memory, shown, results)],
            better,
        ),
        "fidelity.svg": (
            f"Fidelity to exact (fp32) vectors, on {texts} texts",
            [_fidelity(singly, results)],
            "",
        ),
    }
    return {
        file: _chart(title, groups, _caption(note, results))
        for file, (title, groups, note) in charts.items()
    }


def names(results: Results) -> dict[str, str]:
    """The encoders of the table as a chart names them, ours first."""
    fastembed = f"fastembed {results.versions['fastembed']}"
    every = {
        "int8": "qdrant-embed",
        "fp32": "qdrant-embed, fp32",
        "fastembed": fastembed,
        "fastembed-32": f"{fastembed}, batch 32",
        "sentence-transformers": "sentence-transformers",
        "openvino": "OpenVINO int8, tuned",
    }
    return {encoder: name for encoder, name in every.items() if encoder in results.table}


def _corpus_title(results: Results, name: str) -> str:
    facts = results.corpora[name]
    return (
        f"{name}: {facts['texts']} texts of {facts['shortest']} to {facts['longest']} tokens, "
        f"median {facts['median']}, padded {facts['padding_factor']}-fold in batches of 256"
    )


def _group(value: Value, names: dict[str, str], results: Results) -> Group:
    bars = []
    for encoder, name in names.items():
        found = results.table[encoder][value.figure]
        number = found[value.key]
        written = f"{number:,.0f}" if number >= 100 else f"{number:.1f}"
        bars.append(Bar(name, number, f"{written} {value.unit} ({found[value.ratio]:.3g}x)"))
    return Group(value.title, bars)


def _fidelity(names: dict[str, str], results: Results) -> Group:
    bars = []
    for encoder, name in names.items():
        found = results.table[encoder]["fidelity"]
        shared = found["overlap@10"]
        bars.append(Bar(name, shared, f"{shared:.1%} (cosine {found['mean']:.4f})"))
    return Group("nearest ten texts that are the same (mean cosine)", bars)


def _chart(title: str, groups: Sequence[Group], caption: Sequence[str]) -> str:
    """A picture: the groups below each other, and where their figures come from."""
    parts, y = [_text(MARGIN, 24, title, size=16, weight="bold")], 34
    for group in groups:
        y += 22
        parts.append(_text(MARGIN, y, group.title, weight="bold"))
        y += 8
        longest = max(bar.value for bar in group.bars)
        for bar in group.bars:
            parts += _bar(bar, y, longest)
            y += BAR + GAP
    y += 10
    for line in caption:
        y += 15
        parts.append(_text(MARGIN, y, line, size=11))
    height = y + MARGIN
    spoken = "; ".join(f"{bar.name}: {bar.label}" for group in groups for bar in group.bars)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="sans-serif" fill="{TEXT}">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(spoken)}</desc>",
            *parts,
            "</svg>\n",
        ]
    )


def _bar(bar: Bar, y: int, longest: float) -> list[str]:
    own = bar.name == "qdrant-embed"
    weight = "bold" if own else "normal"
    length = max(1.0, (WIDTH - 2 * MARGIN - NAMES - LABELS) * bar.value / longest)
    start, middle = MARGIN + NAMES, y + BAR - 4
    colour = OWN if bar.name.startswith("qdrant-embed") else PEER
    return [
        _text(MARGIN, middle, bar.name, weight=weight),
        f'<rect x="{start}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        _text(start + round(length) + 8, middle, bar.label, weight=weight),
    ]


def _caption(note: str, results: Results) -> list[str]:
    """A note, the command, versions, machine and date, in lines that fit."""
    glue = "\N{NO-BREAK SPACE}"  # a name and its version stay in one line
    versions = ", ".join(f"{name}{glue}{number}" for name, number in results.versions.items())
    wrapped = [line.replace(glue, " ") for line in textwrap.wrap(versions, CAPTION_WIDTH)]
    lines = [results.command, *wrapped]
    lines.append(f"{results.machine}, {results.date}")
    return [note, *lines] if note else lines


def _text(x: int, y: int, text: str, size: int = 13, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'


if __name__ == "__main__":
    main()
