"""A Dockerfile's steps, carried out without an engine for containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path


class ImageBuild:
    """An image as far as it can be had so: each stage is a folder, on this machine's Python.

    Args:
        file: the Dockerfile; one step on each line.
        context: what is copied from.
        folder: takes the stages.

    Attributes:
        root: the last stage's.
        entry: the command that the image runs.
    """

    def __init__(self, file: Path, context: Path, folder: Path) -> None:
        self._context, self._folder = context, folder
        self._stages: dict[str, Path] = {}
        self.root = self._work = folder
        self.entry: list[str] = []
        for line in file.read_text().splitlines():
            step, _, rest = line.partition(" ")
            if step and step != "#":
                getattr(self, f"_{step.lower()}")(rest)

    def _from(self, rest: str) -> None:
        name = rest.partition(" AS ")[2] or "last"
        self.root = self._work = self._stages[name] = self._folder / name
        self.root.mkdir()

    def _workdir(self, path: str) -> None:
        self._work = self._inside(path)
        self._work.mkdir()

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        origin = self._context
        if sources[0].startswith("--from="):
            origin = self._stages[sources.pop(0).removeprefix("--from=")]
        for source in sources:
            found, goal = origin / source.lstrip("/"), self._inside(target)
            if found.is_dir():
                leave_out = (
                    shutil.ignore_patterns("__pycache__") if origin == self._context else None
                )
                shutil.copytree(found, goal, symlinks=True, dirs_exist_ok=True, ignore=leave_out)
            else:
                shutil.copy(found, goal)

    def _run(self, rest: str) -> None:
        done = subprocess.run(
            re.sub(r"(?<!\S)/\S+", lambda path: str(self._inside(path[0])), rest),
            shell=True,
            check=False,
            capture_output=True,
            text=True,
            cwd=self._work,
            env=os.environ | {"PIP_NO_COMPILE": "1"},  # byte code takes half of pip's time
            timeout=600,
        )
        assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"

    def _entrypoint(self, rest: str) -> None:
        self.entry = [str(self._inside(word)) for word in json.loads(rest)]

    def _inside(self, path: str) -> Path:
        return self.root / path[1:] if path.startswith("/") else self._work / path
