"""The pictures of the benchmark are drawn from its figures, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import charts
import pytest
from results import Results

RESULTS = Results.read(charts.FIGURES)
PICTURES = charts.pictures(RESULTS)
SVG = "{http://www.w3.org/2000/svg}"


def test_pictures_are_those_of_the_figures() -> None:
    kept = {path.name: path.read_text() for path in charts.FOLDER.glob("*.svg")}
    assert kept == PICTURES, "python tests/benchmarks/charts.py draws them anew"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_says_where_its_figures_come_from(name: str) -> None:
    root = ET.fromstring(PICTURES[name])
    said = " ".join(" ".join(found.itertext()) for found in root.iter(f"{SVG}text"))
    for fact in (RESULTS.command, RESULTS.cpu, f"{RESULTS.cores} cores", RESULTS.date):
        assert fact in said
    for package, version in RESULTS.versions.items():
        assert f"{package} {version}" in said
    assert len(PICTURES[name].encode()) < 8000


def test_the_longest_bar_is_the_largest_value() -> None:
    root = ET.fromstring(PICTURES["memory.svg"])
    widths = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")]
    values = [RESULTS.table[name]["peak MB"]["median"] for name in charts.names(RESULTS)]
    assert [width / max(widths) for width in widths] == pytest.approx(
        [value / max(values) for value in values], abs=0.01
    )
