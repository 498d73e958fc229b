"""Hashes of files, folders, values and code: what tells whether something must be made anew."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sae_transfer.core import files

PACKAGE = Path(__file__).parents[1]


def digest(value: object) -> str:
    """sha256 of the value's JSON, which, unlike joined text, cannot run two items into one."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(path: Path, of_file: Callable[[Path], str] = sha256) -> str:
    """Of a file, or of a folder with the names and contents of all files in it, also behind links.

    Args:
        path: the file or folder.
        of_file: how a file is hashed; `Remembered` knows those that it hashed before.
    """
    if path.is_file():
        return of_file(path)
    return digest([(str(file.relative_to(path)), of_file(file)) for file in sorted(_files(path)) if file.is_file()])


def _files(folder: Path) -> Iterator[Path]:
    """All files below, each linked folder once, so that links in a circle end."""
    seen = set[str]()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if os.path.realpath(Path(place, name)) not in seen]
        seen.update(os.path.realpath(Path(place, name)) for name in folders)
        yield from (Path(place, name) for name in names)


class Remembered:
    """sha256 of files, where those of large files that have not changed since are taken from a file of earlier ones.

    A file is the same while its size, inode and times are: the time of its last change of state among them, which no
    program can set back. What changed in the last seconds is not remembered: it could change again in the same tick.
    """

    LARGE, SETTLED = 2**20, 2 * 10**9  # bytes; nanoseconds

    def __init__(self, path: Path) -> None:
        self.path, self.used = path, dict[str, list[Any]]()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.known: dict[str, list[Any]] = found if isinstance(found, dict) else {}
        except (OSError, ValueError):  # not there yet, or damaged: everything is hashed anew
            self.known = {}

    def __call__(self, path: Path) -> str:
        about = path.stat()
        if about.st_size < self.LARGE:
            return sha256(path)
        name, now = str(path.absolute()), time.time_ns()
        state = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino]
        known = self.known.get(name)
        found = known[1] if isinstance(known, list) and len(known) == 2 and known[0] == state else sha256(path)
        if now - max(about.st_mtime_ns, about.st_ctime_ns) > self.SETTLED:
            self.used[name] = [state, found]
        return str(found)

    def save(self) -> None:
        """Writes what was hashed now, so that the next run need not."""
        if self.used != self.known:
            files.write_json(self.path, self.used)


def code(*places: str) -> str:
    """Of source files, named as paths inside the package: a module (`pipeline/fit.py`), or a folder (`stats`)."""
    return digest([(place, _source(PACKAGE / place)) for place in places])


def _source(path: Path) -> list[tuple[str, str]]:
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [(str(file.relative_to(PACKAGE)), sha256(file)) for file in found]
