"""The cache folder, shared by several processes: where it is, locks, hashes, atomic writes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from qdrant_embed.errors import MissingDependencyError, ModelFileError
from qdrant_embed.stalls import NOTICE, announced

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "QDRANT_EMBED_CACHE"

_SEAL = "digest"  # of a record, in it
_DIGEST = re.compile("[0-9a-f]{64}")
# folders of the cache; "recall" is where plans were kept once
PARTS = ("hub", "compiled", "plans", "recall", "sha256", "checked", "runtimes")

_FOLDER_MODE, _FILE_MODE = 0o775, 0o664  # less what the umask takes away
_TEMPORARY = re.compile(r"\..+-([0-9]{1,20})-[0-9a-f]{8}")  # as `_beside` calls them
_ABANDONED, _DAY = 3600.0, 86400.0  # seconds
_warned: set[Path] = set()
_NEXT_NOTICE = 60.0  # seconds between messages while another process holds a lock
_LARGE = 1 << 28  # bytes that take a second or so to hash


def cache_folder(chosen: str | os.PathLike[str] | None = None) -> Path:
    """Return `chosen`, else ``QDRANT_EMBED_CACHE``, else the platform's folder for user caches."""
    if chosen is not None:
        return Path(chosen).expanduser()
    if from_environment := _environment(CACHE_VARIABLE):
        return Path(from_environment).expanduser()
    if sys.platform == "win32":
        base = Path(_environment("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(_environment("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "qdrant-embed"


def _environment(variable: str) -> str:
    """Return a variable's value; ``""`` if it is unset or blank, which no folder's name is."""
    value = os.environ.get(variable, "")
    return value if value.strip() else ""


@contextmanager
def explained(target: Path, *, in_cache: bool = True) -> Iterator[None]:
    """Say of any ``OSError`` in the block which folder it was, and how to name another.

    Raises:
        ModelFileError: in place of the ``OSError``.
    """
    advice = (
        f"name a folder that can be written with cache_dir= (--cache-dir of the command) or the "
        f"environment variable {CACHE_VARIABLE}"
        if in_cache
        else "name a folder that can be written"
    )
    try:
        yield
    except OSError as error:
        raise ModelFileError(f"cannot write {target}: {error}; {advice}") from error


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `file`, one process or thread at a time; it is freed when the process ends.

    Raises:
        OSError: the file cannot be written.
        MissingDependencyError: ``filelock`` is not installed.
    """
    try:
        from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
    except ImportError as error:
        raise MissingDependencyError("filelock", "downloading a model") from error
    except RuntimeError:  # the interpreter ends, and Python 3.10 can import it no more
        yield
        return
    # users who share a cache folder by their group may all lock it
    lock: BaseFileLock = FileLock(file, mode=0o664)
    wait = NOTICE
    while not lock.is_locked:
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            logger.warning("waiting for another process, which holds %s", file)
            wait = _NEXT_NOTICE
        except NotImplementedError:  # a file system that cannot lock files
            lock = SoftFileLock(file, mode=0o664)
    try:
        yield
    finally:
        with suppress(OSError):  # what was done under the lock is done
            lock.release()


@contextmanager
def new_folder(target: Path, *, in_cache: bool = True) -> Iterator[Path]:
    """Make a temporary folder beside `target`, renamed to `target` when the block succeeds.

    A reader sees the whole folder or none. If another process was faster, its folder stays and
    this one is dropped: both were made from the same key.

    Raises:
        ModelFileError: the folder cannot be written.
    """
    with explained(target, in_cache=in_cache):
        make_folder(target.parent)
        if in_cache:
            sweep(target.parent)
        temporary = _beside(target)
        temporary.mkdir(_FOLDER_MODE)
        mode = temporary.stat().st_mode
        temporary.chmod(0o700)  # until it is whole, it is nobody else's
    try:
        with explained(target, in_cache=in_cache):
            yield temporary
            for path in temporary.rglob("*"):
                _close_to_others(path)
            temporary.chmod(mode)
            try:
                temporary.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256(path: Path, cache: Path, *, again: bool = False) -> str:
    """Compute the hex sha256 of a file, noted in `cache` until the file's size or time changes.

    With `again`, it is hashed whatever is noted.

    Raises:
        ModelFileError: the file cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    state = f"{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}\n{status.st_ino}"
    note = cache / "sha256" / hashlib.sha256(state.encode()).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        remembered = note.read_text("ascii")
        if _DIGEST.fullmatch(remembered) and not again:
            return remembered
    digest = file_sha256(path)
    note_down(note, digest)
    return digest


def weights_digest(files: Sequence[Path], cache: Path, *, again: bool = False) -> str:
    """Compute the hex sha256 of a model's weights: of a single file, or of the digests of all.

    Args:
        files: the files.
        cache: keeps the digest of each until its size or time changes.
        again: hash them whatever is noted.
    """
    return combined([sha256(file, cache, again=again) for file in files])


def combined(digests: Sequence[str]) -> str:
    """Return the digest of a model's weights by those of its files: the only one, or all."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Compute the hex sha256 of a file as it is now.

    Raises:
        ModelFileError: the file cannot be read.
    """
    total = hashlib.sha256()
    try:
        small = path.stat().st_size < _LARGE
        with path.open("rb") as file, announced(f"hashing {path}", unless=small):
            while block := file.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
    return total.hexdigest()


def is_as_written(path: Path, size: int, digest: str | None, cache: Path | None) -> bool:
    """Return whether a file has that size and sha256; with `cache`, by the digest noted there."""
    try:
        if path.stat().st_size != size:
            return False
        return (sha256(path, cache) if cache else file_sha256(path)) == digest
    except (OSError, ModelFileError):
        return False


def sealed(content: Mapping[str, object]) -> str:
    """Return a record as JSON, with a digest of itself, by which edits are noticed."""
    return json.dumps({**content, _SEAL: _seal(content)}, indent=2)


def unsealed(text: bytes) -> dict[str, Any]:
    """Return the content of a record; one that was written before there were seals has none.

    Raises:
        ValueError: it is not JSON, no object, or was edited.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - as documented
    seal = content.pop(_SEAL, None)
    if seal is not None and seal != _seal(content):
        raise ValueError("it was edited: its digest is that of other content")
    return content


def _seal(content: Mapping[str, object]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def once(cache: Path, what: str, digest: str, check: Callable[[], object]) -> None:
    """Call `check`, unless it has succeeded for content with that digest; note down if it does."""
    note = cache / "checked" / f"{what}-{digest}"
    if not os.path.isfile(note):
        check()
        note_down(note, "")


def note_down(note: Path, text: str) -> None:
    """Write a small file atomically or, where the cache cannot be written, not at all.

    Notes only save time: what they say can be computed again.
    """
    with suppress(OSError):
        write_whole(note, text)


def write_whole(file: Path, text: str) -> None:
    """Write a small file atomically: a reader sees the old content or the new, never a part."""
    make_folder(file.parent)
    temporary = _beside(file)
    try:
        with open_private(temporary) as stream:
            stream.write(text.encode())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, which the world cannot write whatever the umask is.

    Raises:
        OSError: it cannot be made.
    """
    for path in reversed((folder, *folder.parents)):
        if not path.is_dir():
            with suppress(FileExistsError):
                path.mkdir(_FOLDER_MODE)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")


def open_private(path: Path, *, append: bool = False) -> FileIO:
    """Open a file to write it, unbuffered; if it is new, the world cannot write it."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_BINARY", 0), _FILE_MODE)

    return FileIO(path, "ab" if append else "wb", opener=opener)


def _close_to_others(path: Path) -> None:
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        path.chmod(mode & ~stat.S_IWOTH)


def warn_of_others(cache: Path) -> None:
    """Log a warning, once, if other users can write what this process will read from `cache`."""
    if cache in _warned:
        return
    _warned.add(cache)
    for folder in (cache, *(cache / part for part in PARTS)):
        try:
            status = folder.stat()
        except OSError:
            continue
        reason = _open_to(status)
        if reason is not None:
            logger.warning(
                "the cache folder %s is not safe: %s, and so decide which models run here; use a "
                "folder of your own (cache_dir=, --cache-dir or %s), or run chmod o-w (logged "
                "once)",
                folder,
                reason,
                CACHE_VARIABLE,
            )
            return


def _open_to(status: os.stat_result) -> str | None:
    """Return why others can write a folder; ``None`` if they cannot, or nothing is known."""
    if sys.platform != "win32":
        if status.st_mode & stat.S_IWOTH:
            return "every user of this machine can write it"
        if os.geteuid() and status.st_uid not in (0, os.geteuid()):
            return f"it belongs to another user (uid {status.st_uid})"
    return None


def leftovers(folder: Path, *, unchanged: float = 0.0) -> list[Path]:
    """List the temporary files and folders in `folder` whose process has ended.

    Args:
        folder: of the cache.
        unchanged: seconds for which nothing in them has changed. Another machine that shares the
            cache has processes of its own, of which nothing is known here.
    """
    try:
        names = [path for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name)]
    except OSError:
        return []
    now = time.time()
    return sorted(
        path for path in names if not _is_running(path) and now - _changed(path) >= unchanged
    )


def sweep(folder: Path) -> None:
    """Remove what processes that have ended left in `folder` an hour ago or earlier."""
    for path in leftovers(folder, unchanged=_ABANDONED):
        logger.info("removing %s, which a process left that has ended", path)
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _changed(path: Path) -> float:
    """Return when a file, or anything in a folder, was last changed; never if it is gone."""
    try:
        return max(inner.lstat().st_mtime for inner in (path, *path.rglob("*")))
    except OSError:
        return float("inf")


def _is_running(temporary: Path) -> bool:
    """Return whether the process runs that made a temporary file."""
    found = _TEMPORARY.fullmatch(temporary.name)
    if found is None:
        return True
    if sys.platform == "win32":  # where nobody can be asked without a signal
        return time.time() - _changed(temporary) < _DAY
    else:
        try:
            os.kill(int(found[1]), 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:  # another user's
            return True
        return True


def _beside(target: Path) -> Path:
    """Choose a name that nobody else uses; `tempfile` would make it unreadable for other users."""
    return target.with_name(f".{target.name}-{os.getpid()}-{secrets.token_hex(4)}")
