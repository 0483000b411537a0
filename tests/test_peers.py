"""The peers of the benchmark: which are measured, and what they are given."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec

import peers
import pytest
import results
from hypothesis import given
from hypothesis import strategies as st

NEED_NNCF = ("st-openvino", "openvino", "openvino-equal")


def test_a_peer_without_its_packages_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> ModuleSpec | None:
        return None if name == "nncf" else ModuleSpec(name, None)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert peers.left_out() == {name: ["nncf"] for name in NEED_NNCF}
    assert set(peers.available()) == set(peers.PEERS) - set(NEED_NNCF)


def test_ours_need_no_other_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert peers.available() == list(peers.OWN)


@given(st.lists(st.integers(1, 600), max_size=60), st.sampled_from([1, 16]))
def test_batches_hold_every_text_once_and_pad_less_than_a_step(
    lengths: list[int], step: int
) -> None:
    batches = peers.batches([[0] * length for length in lengths], step)
    assert sorted(place for places, _ in batches for place in places) == list(range(len(lengths)))
    for places, length in batches:
        assert all(0 <= length - lengths[place] < step for place in places)
        assert len(places) == 1 or len(places) * length <= peers.TOKENS_PER_BATCH


def test_a_processor_is_known_by_its_extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "processor_lines", lambda: ["flags\t\t: fpu avx2 avx512_vnni"])
    found = results.Results.of("command", [], {}, {"openvino": ["nncf"]})
    assert found.features == ["avx2", "avx512_vnni"]
    assert "(avx2 avx512_vnni)" in found.machine
    assert "left out: openvino (nncf not installed)" in found.lines()
