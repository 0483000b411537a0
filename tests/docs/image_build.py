"""A Dockerfile's steps, carried out without an engine for containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import venv
from pathlib import Path


class ImageBuild:
    """Carries a Dockerfile's steps out in a folder for each stage, with an environment in it."""

    def __init__(self, file: Path, context: Path, folder: Path) -> None:
        self._context, self._folder = context, folder
        self._stage = self._work = folder
        self._stages: dict[str, Path] = {}
        self.entry: list[str] = []
        for line in file.read_text().splitlines():
            step, _, rest = line.partition(" ")
            if step and not step.startswith("#"):
                getattr(self, f"_{step.lower()}")(rest)

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self._stage / 'python/bin'}{os.pathsep}{os.environ['PATH']}"
        }

    @property
    def work(self) -> Path:
        return self._work

    def _from(self, rest: str) -> None:
        name = rest.partition(" AS ")[2] or "last"
        self._stage = self._work = self._stages[name] = self._folder / name
        venv.create(self._stage / "python", with_pip=True)

    def _workdir(self, path: str) -> None:
        self._work = self._stage / path.lstrip("/")
        self._work.mkdir()

    def _copy(self, rest: str) -> None:
        *options, source, target = rest.split()
        origin = self._context
        if options:
            origin = self._stages[options[0].removeprefix("--from=")]
        found, goal = origin / source.lstrip("/"), self._work / target
        if found.is_dir():
            leave_out = shutil.ignore_patterns(".*", "__pycache__")
            shutil.copytree(found, goal, dirs_exist_ok=True, ignore=leave_out)
        else:
            shutil.copy(found, goal)

    def _run(self, rest: str) -> None:
        mounted = re.match(r"--mount=type=bind,from=(\w+),source=(\S+),target=(\S+) ", rest)
        folders = self._stage
        if mounted:
            rest, folders = rest[mounted.end() :], self._stages[mounted[1]]
        command = re.sub(r" /(\w+)", lambda path: f" {folders / path[1]}", rest)
        done = subprocess.run(
            command,
            shell=True,
            check=False,
            capture_output=True,
            text=True,
            cwd=self._work,
            env=self.environment,
            timeout=600,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def _entrypoint(self, rest: str) -> None:
        self.entry = json.loads(rest)
