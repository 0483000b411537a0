"""The folder of an embedded database: what is in it, who has it open, which engine made it.

::

    notes/
      qdrant_embed.json     what is stored: the engine, collections, their options, stamps, aliases
      .lock                 held by the process that has the folder open
      collections/<key>/    one shard of the engine each; what no collection names is removed

`qdrant_embed.json` is replaced as a whole, and says which folder a collection is in. So a
collection exists from the moment it is written there, and its folder is exchanged for a better one
in the same way. A folder of local mode has a ``meta.json`` instead.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from qdrant_client import models

from qdrant_embed.engines.folders import MANIFEST
from qdrant_embed.errors import ClientStateError, FolderError
from qdrant_embed.forks import ForkLock
from qdrant_embed.version import VERSION

FORMAT = 1  # of what is written in `Manifest`; raise it when older versions cannot read it

_KEY = "[0-9a-f]{16}"
_OPEN_FILES = "/proc/self/fd"  # of Linux
_LARGEST_MANIFEST = 64 * 2**20  # bytes


class Collection(BaseModel):
    """What is known of a collection.

    Attributes:
        key: name of its folder.
        config: how it was created, and its metadata.
        indices: kind, or parameters, of the index of each payload field that has one.
        indexed: number of points when its vectors were indexed.
    """

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(pattern=f"^{_KEY}$")]
    config: models.CreateCollection
    indices: dict[str, models.PayloadFieldSchema] = {}
    indexed: Annotated[int, Field(ge=0)] = 0


class Manifest(BaseModel):
    """What a folder holds.

    Attributes:
        format: version of this record.
        engine: name of the engine that made the folder.
        engine_version: version of the engine that wrote it last.
        written_by: version of this package that did.
        collections: collections by name.
        aliases: names of collections by alias.
    """

    model_config = ConfigDict(extra="forbid")

    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    engine: Literal["edge"] = "edge"
    engine_version: str = ""
    written_by: str = VERSION
    collections: dict[str, Collection] = {}
    aliases: dict[str, str] = {}


class Folder:
    """A folder that this process has open, alone.

    Args:
        path: the folder; it is created if it does not exist.

    Raises:
        FolderError: if another process has it open, or it cannot be read or written.

    Attributes:
        path: the folder.
        manifest: what it holds. Another one takes its place when that changes; what has been read
            from it stays as it was.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._changing, self._pid = ForkLock(), os.getpid()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "collections").mkdir(exist_ok=True)
            self._lock = _locked(self.path)
        except FolderError:
            raise
        except OSError as error:
            raise explained(error, self.path) from error
        try:
            self.manifest = self._read()
            if not (self.path / MANIFEST).exists():
                self._write(self.manifest)
            self._sweep()
        except BaseException:
            self.release()
            raise

    @property
    def is_inherited(self) -> bool:
        """Whether the process that opened the folder has forked this one."""
        return self._pid != os.getpid()

    def closed_error(self) -> ClientStateError:
        """Return the error that says why the folder cannot be used by this client any more."""
        if self.is_inherited:
            return ClientStateError(
                f"this client had {str(self.path)!r} open before the process was forked, and only "
                "the parent can use it: open a folder after the fork, in one process"
            )
        return ClientStateError(f"this client of {str(self.path)!r} is closed: create a new one")

    def shard(self, collection: Collection) -> Path:
        """Return the folder of a collection's shard."""
        return self.shard_of(collection.key)

    def shard_of(self, key: str) -> Path:
        """Return the folder of a shard by its key."""
        return self.path / "collections" / key

    @staticmethod
    def new_key() -> str:
        """Return the name of a new shard's folder."""
        return token_hex(8)

    @contextlib.contextmanager
    def change(self) -> Iterator[Manifest]:
        """Let one thread say what the folder holds; then write that, as a whole or not at all.

        Yields:
            a copy of the manifest. Its collections are replaced, never changed.

        Raises:
            FolderError: if it cannot be written. Then nothing has changed.
        """
        with self._changing:
            before = self.manifest
            after = before.model_copy(
                update={"collections": {**before.collections}, "aliases": {**before.aliases}}
            )
            yield after
            try:
                self._write(after)
                self.manifest = after
            except BaseException:
                if self.manifest is before:  # it may be written nevertheless
                    with contextlib.suppress(FolderError):
                        self._write(before)
                raise

    def _write(self, manifest: Manifest) -> None:
        manifest.engine_version = importlib.metadata.version("qdrant-edge-py")
        manifest.written_by = VERSION
        text = json.dumps(
            manifest.model_dump(mode="json", exclude_none=True), ensure_ascii=False, indent=1
        )
        try:
            handle, name = tempfile.mkstemp(prefix=MANIFEST, suffix=".tmp", dir=self.path)
            try:
                with open(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(name, self.path / MANIFEST)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
            sync_folder(self.path)
        except (OSError, UnicodeEncodeError) as error:
            raise explained(error, self.path) from error

    def discard(self, key: str) -> None:
        """Remove a shard's folder, unless a collection is in it, as far as the disk says."""
        with self._changing:
            try:
                written = self._read()
            except (FolderError, OSError):  # what is not named is removed when it is opened again
                return
            collections = [*self.manifest.collections.values(), *written.collections.values()]
            if key not in {collection.key for collection in collections}:
                shutil.rmtree(self.shard_of(key), ignore_errors=True)

    def release(self) -> None:
        """Let other processes open the folder."""
        _unlock(self._lock)

    def after_fork(self) -> None:
        """Leave the folder to the parent.

        A child has what the parent had open, and with it the locks: ours, and that of the engine on
        each shard. As long as it keeps them, nobody could open the folder after the parent.
        """
        self._lock.close()
        if os.path.isdir(_OPEN_FILES):
            inside = os.path.join(os.path.realpath(self.path), "collections", "")
            for handle in os.listdir(_OPEN_FILES):
                with contextlib.suppress(OSError):  # the listing itself was one
                    if os.readlink(os.path.join(_OPEN_FILES, handle)).startswith(inside):
                        os.close(int(handle))

    def _read(self) -> Manifest:
        """Return what is written in the folder.

        Raises:
            FolderError: if it is damaged, or a newer version wrote it.
        """
        file = self.path / MANIFEST
        try:
            if file.stat().st_size > _LARGEST_MANIFEST:
                raise self._damaged(f"it has more than {_LARGEST_MANIFEST // 2**20} MB")
            found = json.loads(file.read_text(encoding="utf-8"))
            self._check_version(found)
            manifest = Manifest.model_validate(found)
        except FileNotFoundError:
            self._check_empty()
            return Manifest()
        except FolderError:
            raise
        except OSError as error:
            raise explained(error, self.path) from error
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"]))
            raise self._damaged(f"{where:.100}: {wrong['msg']:.200}") from error
        except (ValueError, RecursionError) as error:  # no JSON, or too deep
            raise self._damaged(f"{error!s:.200}") from error
        for alias, name in manifest.aliases.items():
            if name not in manifest.collections or alias in manifest.collections:
                raise self._damaged(f"alias {alias!r:.80} leads nowhere")
        return manifest

    def _check_version(self, found: Any) -> None:
        version = found.get("format") if isinstance(found, dict) else None
        if isinstance(version, int) and version > FORMAT:
            raise FolderError(
                f"{str(self.path)!r} was written by a newer version of qdrant-embed "
                f"({str(found.get('written_by'))!r:.40}, format {version}): update this one with "
                "`pip install -U 'qdrant-embed[edge]'`",
                path=str(self.path),
            )

    def _check_empty(self) -> None:
        if any((self.path / "collections").iterdir()):
            raise FolderError(
                f"{str(self.path)!r} has collections, but no {MANIFEST}, which says what they are: "
                "restore it, or remove the folder",
                path=str(self.path),
            )

    def _damaged(self, what: str) -> FolderError:
        return FolderError(
            f"{str(self.path / MANIFEST)!r} is damaged ({what}): restore it from a copy; the "
            "collections beside it are untouched",
            path=str(self.path),
        )

    def _sweep(self) -> None:
        """Remove what a process that died left behind."""
        keys = {collection.key for collection in self.manifest.collections.values()}
        for left in (self.path / "collections").iterdir():
            if left.name not in keys and re.fullmatch(_KEY, left.name):
                shutil.rmtree(left, ignore_errors=True)
        for left in self.path.glob(f"{MANIFEST}*.tmp"):
            with contextlib.suppress(OSError):
                left.unlink()


def _locked(path: Path) -> Any:
    """Return the open lock file of a folder.

    Raises:
        FolderError: if another process holds it, or another client of this one.
    """
    import portalocker  # looks for folders that it can write when it is imported

    file = open(path / ".lock", "a+")  # noqa: SIM115 - open as long as the folder is
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.exceptions.LockException as error:
        file.close()
        raise FolderError(
            f"{str(path)!r} is open in another process, or another client of this one: close that "
            "one, share one client, or use a server for several processes",
            path=str(path),
        ) from error
    except BaseException:
        file.close()
        raise
    return file


def _unlock(file: Any) -> None:
    if not sys.is_finalizing():  # too late to import anything
        import portalocker

        with contextlib.suppress(portalocker.exceptions.LockException, ValueError):  # no lock
            portalocker.unlock(file)  # a forked child has the file open, too, and would keep it
    file.close()


def sync_folder(path: Path) -> None:
    """Have the disk keep what was renamed in a folder, where the system can."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explained(error: Exception, path: Path) -> FolderError:
    """Return the error that says why a folder cannot be used, given what was raised."""
    found = error.errno if isinstance(error, OSError) else None
    if found in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = "cannot be written: an embedded database needs that, even to read it"
    elif found in (errno.ENOSPC, errno.EDQUOT):
        what = "has no space left"
    elif found == errno.ENOENT:
        what = "does not exist"
    else:
        what = "cannot be used"
    return FolderError(f"folder {str(path)!r} {what} ({error})", path=str(path))
