"""Hashes of files, folders, values and code: what tells whether something must be made anew."""

import hashlib
import json
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def digest(value: object) -> str:
    """sha256 of the value's JSON, which, unlike joined text, cannot run two items into one."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(path: Path) -> str:
    """Of a file, or of a folder with the names and contents of all files in it."""
    if path.is_file():
        return sha256(path)
    return digest([(str(file.relative_to(path)), sha256(file)) for file in sorted(path.rglob("*")) if file.is_file()])


def code(*places: str) -> str:
    """Of source files, named as paths inside the package: a module (`pipeline/fit.py`), or a folder (`stats`)."""
    return digest([(place, _source(PACKAGE / place)) for place in places])


def _source(path: Path) -> list[tuple[str, str]]:
    found = [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [(str(file.relative_to(PACKAGE)), sha256(file)) for file in found]
