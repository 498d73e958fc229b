"""Bringing a published dataset's originals: resumed where they broke off, never trusted without their checksum."""

import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from sae_transfer import store
from sae_transfer.datasets.sources import File, Source, notice
from sae_transfer.records import UserError

CHUNK, TIMEOUT = 2**16, 30  # bytes; seconds without an answer
ATTEMPTS = 3  # a connection that breaks is taken up again where it broke


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
        UserError: no network, an address that is gone, a connection that broke (the next call goes on from there), a
            checksum that is not the original's, or a file that `given` lacks.
    """
    wanted = [file for file in source.files if not _present(folder / file.name, file)]
    for file in wanted:
        if given is not None:
            with store.replacing(folder / file.name) as temporary:
                shutil.copyfile(_held(name, file, given), temporary)
        else:
            _download(file, folder)
    store.write_text(folder / "README.md", notice(source))
    return [folder / file.name for file in wanted]


def matches(path: Path, digest: str) -> bool:
    """Whether the file has this digest (`sha256:<hex>`, or `git:<hex>`, the sha1 of a git blob)."""
    kind, expected = digest.split(":")
    if kind == "sha256":
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == expected
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as opened:
        while chunk := opened.read(2**20):
            blob.update(chunk)
    return blob.hexdigest() == expected


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


def _download(file: File, folder: Path) -> None:
    path, part = folder / file.name, folder / f".{file.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    resumed = part.exists()
    _complete(file, part)
    if resumed and not matches(part, file.digest):  # its beginning came from an earlier call: once more, from the start
        part.unlink()
        _complete(file, part)
    if not matches(part, file.digest):
        part.unlink()
        raise UserError(
            f"{path}: what {file.url} sends is not the original (its checksum differs), so it was not kept; get the "
            "original elsewhere and give its folder with --from"
        )
    part.chmod(0o644)
    part.replace(path)


def _complete(file: File, part: Path) -> None:
    """Appends to `part` until the whole file is there."""
    for _ in range(ATTEMPTS):
        try:
            if _receive(file, part):
                return
        except urllib.error.HTTPError as error:
            raise UserError(f"{file.url}: {_refusal(error)}") from None
        except urllib.error.URLError as error:
            if not isinstance(error.reason, TimeoutError):
                raise UserError(
                    f"{file.url}: no connection ({error.reason}); try again with a network, or bring the file by hand "
                    "and give its folder with --from"
                ) from None
        except (OSError, http.client.HTTPException):
            continue
    have = part.stat().st_size / 1e6 if part.exists() else 0.0
    raise UserError(
        f"{file.url}: the connection broke {ATTEMPTS} times; the {have:.1f} MB so far are kept, and the same command "
        "goes on from there"
    )


def _receive(file: File, part: Path) -> bool:
    """One connection; whether the file is complete after it."""
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(file.url, headers={"Accept-Encoding": "identity", "User-Agent": "sae-transfer"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        return True  # nothing lies beyond what is here; the checksum says whether that is the file
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the server sends everything, whatever was asked
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        if total:
            store.check_room(part.parent, total - have)
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=file.name)
        with bar, part.open("ab" if have else "wb") as kept:
            while chunk := answer.read(CHUNK):
                kept.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
    return total is None or have >= total


def _refusal(error: urllib.error.HTTPError) -> str:
    if error.code in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
        return f"not there any more ({error.code}); get the file elsewhere and give its folder with --from"
    return f"refused ({error.code} {error.reason}); try again later, or bring the file by hand with --from"
