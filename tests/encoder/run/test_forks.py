"""A forked child encodes, adds, queries and ends, whatever its parent was doing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import FORKS, run
from tiny import TinyModel
from tiny_onnx import tiny_onnx

from qdrant_embed import LateInteractionTextEmbedding, ModelError, TextEmbedding
from qdrant_embed.encoder.run.backend import Inputs
from qdrant_embed.encoder.run.session import Session
from qdrant_embed.forks import ForkLock

LATE = sorted((Path(__file__).parents[2] / "fixtures" / "late").iterdir())[0]

pytestmark = pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="Unix forks")

BEGIN = (
    FORKS
    + """
from qdrant_embed import QdrantClient, SparseTextEmbedding, TextEmbedding

def encode():
    for number in range(12):
        [vector] = encoder.query_embed(f"cat {number}")
        assert abs(vector @ vector - 1) < 1e-3
    assert len(list(encoder.embed(["cat dog " * (number % 9) for number in range(80)]))) == 80

encoder = TextEmbedding(sys.argv[1], threads=2, lazy_load=True)
"""
)


def test_a_child_ends_after_its_parent_asked_queries(tiny: TinyModel) -> None:
    run(BEGIN + "encode(); ended(child(lambda: None))", tiny.path)


def test_a_child_encodes_what_its_parent_loaded_and_so_does_its_own(tiny: TinyModel) -> None:
    work = """
    def grandparent():
        encode()
        ended(child(encode))

    encode()
    ended(child(grandparent), child(encode), child(encode))
    encode()
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


def test_workers_of_a_server_that_loads_before_it_forks(tiny: TinyModel) -> None:
    work = """
    client = QdrantClient(":memory:")
    client.set_model(sys.argv[1])
    client.set_sparse_model("Qdrant/bm25")
    client.add("a", ["cat", "dog"])
    for _ in range(8):
        client.query("a", "cat")

    def worker():
        client.add("a", ["ship " * n for n in range(1, 40)])
        assert client.query("a", "cat")[0].document == "cat"

    ended(child(worker), child(worker))
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


@pytest.mark.slow
def test_forks_while_other_threads_encode(tiny: TinyModel) -> None:
    work = """
    encode()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            encode()

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        time.sleep(0.02)
        ended(child(encode))
    stop.set()
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


@pytest.mark.slow
def test_forks_while_another_thread_loads(tiny: TinyModel) -> None:
    work = """
    for number in range(8):
        encoder = TextEmbedding(sys.argv[1], threads=2, lazy_load=True)
        thread = threading.Thread(target=encoder.load)
        thread.start()
        time.sleep(0.002 * number)
        ended(child(encode))
        thread.join()
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


@pytest.mark.parametrize(
    ("module", "work"),
    [
        ("mmh3", "qdrant_embed.SparseTextEmbedding()"),
        ("qdrant_embed.encoder.text", "qdrant_embed.TextEmbedding"),
        ("onnxruntime", "qdrant_embed.TextEmbedding(sys.argv[1], precision='fp32')"),
    ],
)
def test_a_fork_while_another_thread_imports(module: str, work: str, tiny: TinyModel) -> None:
    """A child would wait for ever for a module that its parent's other thread was importing."""
    script = f"""
    import os, sys, threading, time
    import qdrant_embed

    class Slow:
        def find_spec(self, name, path=None, target=None):
            if name == "{module}":
                begun.set()
                time.sleep(0.3)

    begun = threading.Event()
    sys.meta_path.insert(0, Slow())
    thread = threading.Thread(target=lambda: {work})
    thread.start()
    begun.wait()
    if not (pid := os.fork()):
        {work}
        os._exit(7)
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.01)
    if not ended[0]:
        os.kill(pid, 9)
    assert os.waitstatus_to_exitcode(ended[1]) == 7, "a child hangs"
    thread.join()
    """
    run(script, tiny.path)


def test_a_pool_of_forked_processes(tiny: TinyModel) -> None:
    work = """
    import multiprocessing

    def first(text):
        return float(next(iter(encoder.query_embed(text)))[0])

    encode()
    expected = [first(text) for text in ("cat", "dog", "ship") * 5]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(first, ("cat", "dog", "ship") * 5)
    assert all(abs(a - b) < 1e-5 for a, b in zip(found, expected)), (found, expected)
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


def test_what_a_parent_began_cannot_be_read_on_in_its_child(tiny: TinyModel) -> None:
    work = """
    from qdrant_embed import ModelError

    vectors = encoder.embed(("cat " * (n % 7) for n in range(400)), batch_size=20)
    next(vectors)

    def read_on():
        try:
            list(vectors)
        except ModelError as error:
            assert "fork" in str(error)
        else:
            raise AssertionError("it was read on")
        encode()

    ended(child(read_on))
    assert len(list(vectors)) == 399
    """
    run(BEGIN + work.replace("\n    ", "\n"), tiny.path)


@pytest.mark.parametrize("options", [{}, {"precision": "fp32"}, {"overflow": "mean"}])
def test_vectors_are_memory_of_their_own(tiny: TinyModel, options: dict[str, Any]) -> None:
    """What a library owns is freed under its locks, for which a forked child may wait for ever."""
    encoder = TextEmbedding(tiny.path, **options)
    texts = ["cat", "a dog", "the ship sailed", "a storm " * 40] * 3
    vectors = [vector for text in texts for vector in encoder.query_embed(text)]
    vectors += [*encoder.embed(texts), *encoder.embed(texts, batch_size=2)]
    if not options:
        late = LateInteractionTextEmbedding(LATE)
        vectors += [*late.query_embed("cat"), *late.passage_embed(texts)]
    for vector in vectors:
        owner: object = vector
        while isinstance(owner, np.ndarray) and owner.base is not None:
            owner = owner.base
        assert isinstance(owner, np.ndarray), type(owner)


def test_a_device_belongs_to_the_parent(tmp_path: Path) -> None:
    tiny_onnx(20, 10).save(tmp_path / "model.onnx")
    session = Session(tmp_path / "model.onnx")
    session._providers = ("CUDAExecutionProvider",)  # no machine of ours has one
    session.after_fork()
    with pytest.raises(ModelError, match="spawn"):
        session.run(Inputs(np.ones((1, 3), np.int64)))


def test_a_lock_that_another_thread_holds_is_free_in_the_child() -> None:
    lock = ForkLock()
    lock.acquire()
    lock.after_fork()  # its own thread goes on with it
    lock.release()
    script = """
    import os, threading
    from qdrant_embed.forks import ForkLock

    lock = ForkLock()
    held, stop = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            stop.wait()

    threading.Thread(target=hold).start()
    held.wait()
    if (pid := os.fork()) == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    _, status = os.waitpid(pid, 0)
    stop.set()
    assert status == 0
    """
    run(script)


def test_a_fork_waits_for_a_lock_that_is_awaited() -> None:
    script = """
    import os, threading, time
    from qdrant_embed.forks import ForkLock

    lock = ForkLock(awaited=True)
    held = threading.Event()
    done = []

    def hold():
        with lock:
            held.set()
            time.sleep(0.5)
            done.append(True)

    threading.Thread(target=hold).start()
    held.wait()
    if (pid := os.fork()) == 0:
        os._exit(0 if done and lock.acquire(timeout=5) else 1)
    _, status = os.waitpid(pid, 0)
    assert status == 0 and lock.acquire(timeout=5)
    """
    run(script)
