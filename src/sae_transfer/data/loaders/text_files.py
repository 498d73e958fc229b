"""Text files as people have them: compressed or not, with a byte order mark or none. What is broken has its place."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sae_transfer.core.errors import UserError

Record = dict[str, Any]
UNREADABLE = re.compile("[\\0\\ud800-\\udfff]")
OTHERS = {  # what files begin with that are something else
    **{b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"},
    **{b"\x1f\x8b": "gzip, whose name ends in .gz", b"\x28\xb5\x2f\xfd": "zstd, whose name ends in .zst"},
}


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file, decompressed on the way where its name ends in .gz or .zst.

    Raises:
        UserError: it is damaged, not UTF-8 (the line), or may not be read.
        FileNotFoundError: there is no such file.
    """
    import zstandard  # here, for start-up time

    try:
        with _open_bytes(path) as binary:
            # utf-8-sig: spreadsheets put a byte order mark before the first column's name
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UserError(f"{path}: damaged archive ({error}); fetch or pack it again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}{_not_utf_8(path)}; save it as text in UTF-8") from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); correct its path or its rights") from None


@contextmanager
def _open_bytes(path: Path) -> Iterator[Any]:
    with path.open("rb") as raw:
        if path.suffix == ".gz":
            yield gzip.GzipFile(fileobj=raw)
        else:
            yield io.BytesIO(_unpacked(raw.read())) if path.suffix == ".zst" else raw


def _not_utf_8(path: Path) -> str:
    """Where a file is no UTF-8, or what it is; the decoder would count from the beginning of a block."""
    with _open_bytes(path) as binary:
        content = binary.read()
    for begin, kind in OTHERS.items():
        if content.startswith(begin):
            return f": not UTF-8 text but {kind}"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        return f" line {line}: not UTF-8 text (byte 0x{byte:02x})"
    return ": not UTF-8 text"


def _unpacked(data: bytes) -> bytes:
    """All zstd frames of `data`; the library's own reader takes a file that was cut off for a shorter one."""
    import zstandard

    parts = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("it ends too early")
        data = frame.unused_data
    return b"".join(parts)


def json_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """The objects of a JSON Lines file with their line numbers, blank lines left out.

    Raises:
        UserError: a line is no JSON object (file and line).
        FileNotFoundError: there is no such file.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path} line {number}"
                record = parsed(line, where)
                if not isinstance(record, dict):
                    raise UserError(
                        f"{where}: expected a JSON object, found {type(record).__name__}; write one object a line"
                    )
                yield number, record


def parsed(text: str, where: str) -> Any:
    """The JSON of a text.

    Raises:
        UserError: it is broken, has a key twice, or is more than Python reads; the message begins with `where`.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        lines = f" line {error.lineno}" if text.count("\n", 0, len(text.rstrip())) else ""
        hint = "write one object a line, without [ and commas" if text.strip() == "[" else "correct it"
        hint = "it has NUL bytes: save it as text in UTF-8" if "\0" in text else hint
        raise UserError(f"{where}{lines}: broken JSON ({error.msg} at column {error.colno}); {hint}") from None
    except RecursionError:
        raise UserError(f"{where}: broken JSON (nested too deeply); correct it") from None
    except ValueError as error:  # a key twice, a number of thousands of digits
        raise UserError(f"{where}: broken JSON ({error}); correct it") from None


def check_readable(text: str, what: str) -> None:
    """Refuses NUL and half of a character (a cut emoji): no text that a file, a hash or a tokenizer takes.

    Raises:
        UserError: with its place; the message begins with `what`.
    """
    if odd := UNREADABLE.search(text):
        raise UserError(
            f"{what} has {odd[0]!a} at character {odd.start()}, which is no text; remove it, or read the data anew as "
            "UTF-8"
        )


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return record
