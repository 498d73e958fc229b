"""Bringing a published dataset's originals: whole or not at all, and never trusted without their checksum."""

import hashlib
import shutil
from pathlib import Path

import pooch

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.data.sources import File, Source, notice

TIMEOUT = 30  # seconds without an answer


def fetch(name: str, source: Source, folder: Path, given: Path | None = None) -> list[Path]:
    """Every file of `source` in `folder`, with its notice of origin and licence; what is there and right stays.

    Args:
        name: the dataset's name, a folder of which may lie in `given`.
        source: where its files are.
        folder: where they go.
        given: a folder in which the user already has the files; nothing is downloaded then.

    Returns:
        The files that were brought now.

    Raises:
        UserError: no network, an address that is gone, a connection that broke, a checksum that is not the original's,
            or a file that `given` lacks.
    """
    wanted = [file for file in source.files if not _present(folder / file.name, file)]
    for file in wanted:
        with files.replacing(folder / file.name) as temporary:
            if given is None:
                _download(file, temporary)
            else:
                shutil.copyfile(_held(name, file, given), temporary)
    files.write_text(folder / "README.md", notice(source))
    return [folder / file.name for file in wanted]


def matches(path: Path, digest: str) -> bool:
    """Whether the file has this digest (`sha256:<hex>`, or `git:<hex>`, the sha1 of a git blob)."""
    kind, expected = digest.split(":")
    if kind == "sha256":
        return bool(pooch.file_hash(path) == expected)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == expected


def _present(path: Path, file: File) -> bool:
    if not path.exists():
        return False
    if not matches(path, file.digest):
        raise UserError(f"{path}: not the original (its checksum differs); move it away, or delete it to fetch it anew")
    return True


def _held(name: str, file: File, given: Path) -> Path:
    """The user's copy of a file: under its own name, else under any name by its checksum."""
    if not given.is_dir():
        raise UserError(f"{given}: no such folder; --from names the folder that holds the files")
    named = [path for path in (given / file.name, given / name / file.name) if path.is_file()]
    for path in named or sorted(given.glob("*.json")):
        if matches(path, file.digest):
            return path
    if named:
        raise UserError(f"{named[0]}: not the original (its checksum differs); get it anew from {file.url}")
    raise UserError(f"{given}: lacks {file.name}, under whatever name; get it from {file.url}, or leave --from out")


def _download(file: File, path: Path) -> None:
    elsewhere = "get it elsewhere and give its folder with --from"
    try:
        pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)(file.url, str(path), None)
    except OSError as error:  # every error of requests is one, and so is a full disk
        cause: BaseException = error
        while cause.__context__:  # the innermost says it in plain words
            cause = cause.__context__
        raise UserError(f"{file.url}: did not arrive ({cause}); try again later, or {elsewhere}") from None
    if not matches(path, file.digest):
        raise UserError(f"{file.url}: sends not the original (its checksum differs), so it was not kept; {elsewhere}")
