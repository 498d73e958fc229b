"""Items: what a stage makes, one pure call each, kept where nothing that they are made of has changed.

A stage has a folder of its own. `manifest.json` in it says of every item what it was made of (its identity) and the
sha256 of its files. An item is kept while both still hold; the others are made, in parallel processes, each file
written whole by a rename. So a killed stage goes on where it was, and a change remakes what depends on it alone.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.hashing import digest, sha256

MANIFEST = "manifest.json"
KEEP_EVERY = 1.0  # seconds: what a kill can lose, beside the items under way


@dataclass(frozen=True)
class Item:
    """One thing to make.

    `name` begins the paths of its files inside the stage's folder (`narrow_3/people` makes `narrow_3/people.*`).
    `args` is what the stage's function gets. `inputs` is all that decides the result, as plain JSON: hashes of files,
    params. Items of one `group` are made by one call, which gets those that are not there yet. Items of a later `wave`
    are made when those of earlier ones are there, whose files they read.
    """

    name: str
    args: tuple[Any, ...]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    wave: int = 0

    def identity(self, recipe: str) -> str:
        """What tells this item from one that was made otherwise; `recipe` stands for the code."""
        return digest({"recipe": recipe, "inputs": self.inputs})


Work = Callable[[Sequence[Item]], Mapping[str, Sequence[Path]]]
"""Makes the items of one group, writes their files and gives their paths, by item."""


def each(work: Callable[..., Sequence[Path]]) -> Work:
    """The work of a stage whose items are made one by one: `work(*item.args)` writes an item's files."""
    return _Each(work)


@dataclass(frozen=True)
class _Each:
    work: Callable[..., Sequence[Path]]

    def __call__(self, items: Sequence[Item]) -> dict[str, Sequence[Path]]:
        return {item.name: self.work(*item.args) for item in items}


def run(
    folder: Path, items: Sequence[Item], work: Work, recipe: str, *, jobs: int = 1, single_thread: bool = True
) -> list[str]:
    """Makes what is missing or out of date, removes what no item names, and writes the manifest.

    Args:
        folder: the stage's.
        items: every item that shall be there.
        work: how they are made; a function of a module, so that other processes can import it.
        recipe: what stands for the code: a version, or a hash.
        jobs: parallel processes. The result does not depend on it.
        single_thread: give each process one BLAS thread, which keeps results the same whatever the machine.

    Returns:
        The names of the items that were made now.

    Raises:
        UserError: the first item that could not be made; the others are made nevertheless.
    """
    known = _read(folder)
    wanted = {item.name: item.identity(recipe) for item in items}
    kept = {
        name: made
        for name, made in known.items()
        if made and made.get("identity") == wanted.get(name) and _whole(folder, made)
    }
    todo = [item for item in items if item.name not in kept]
    manifest: dict[str, Any] = dict(kept) | {item.name: {} for item in todo}
    _clean(folder, known, kept)
    if not todo and known.keys() == kept.keys() and (folder / MANIFEST).is_file():
        return []
    _write(folder, manifest)
    last = time.monotonic()
    try:
        for name, paths in _made(work, todo, jobs, single_thread):
            hashes = {str(path.relative_to(folder)): sha256(path) for path in sorted(paths)}
            manifest[name] = {"identity": wanted[name], "files": hashes}
            if time.monotonic() - last > KEEP_EVERY:
                _write(folder, manifest)
                last = time.monotonic()
    finally:
        _write(folder, manifest)
    return [item.name for item in todo]


def made(folder: Path) -> dict[str, str]:
    """By item, the hash of what a stage made of it, for the identity of what is made from that.

    Raises:
        UserError: the stage has not run.
    """
    found = _entries(files.read_json(folder / MANIFEST))
    return {name: digest(entry["files"]) for name, entry in found.items() if entry}


def share_made(folder: Path) -> float:
    """Which share of a stage's items is there, while it runs; 0 before it has begun."""
    entries = _read(folder).values()
    return sum(map(bool, entries)) / len(entries) if entries else 0.0


def _read(folder: Path) -> dict[str, Any]:
    try:
        return _entries(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):  # no run yet, or it is damaged: everything is made anew
        return {}


def _entries(manifest: Any) -> dict[str, Any]:
    """The entries of a manifest that are ones: {} of an item that is not made yet, else its identity and its files."""
    found = manifest.items() if isinstance(manifest, dict) else ()
    return {name: entry for name, entry in found if entry == {} or _is_entry(entry)}


def _is_entry(entry: Any) -> bool:
    recorded = entry.get("files") if isinstance(entry, dict) and isinstance(entry.get("identity"), str) else None
    return isinstance(recorded, dict) and all(isinstance(hashed, str) for hashed in recorded.values())


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    files.write_json(folder / MANIFEST, manifest)


def _whole(folder: Path, entry: Mapping[str, Any]) -> bool:
    recorded = [(folder / name, hashed) for name, hashed in entry["files"].items()]
    return all(path.is_file() and sha256(path) == hashed for path, hashed in recorded)


def _clean(folder: Path, known: Mapping[str, Any], kept: Mapping[str, Any]) -> None:
    """Removes the files of items that are gone or out of date: those that the manifest lists and, of an item that a
    kill left unmade, those that begin with its name. Nothing outside the stage's folder, whatever a manifest says, and
    nothing behind a link.
    """
    safe = {name for entry in kept.values() for name in entry["files"]}
    for name in known.keys() - kept.keys():
        for path in _begun(folder, name, known[name]):
            if str(path.relative_to(folder)) not in safe and (path.is_symlink() or path.is_file()):
                path.unlink()
        parent = (folder / name).parent
        if parent != folder and _is_inside(folder, parent) and parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def _begun(folder: Path, name: str, entry: Mapping[str, Any]) -> list[Path]:
    """The files of an item, and those of it that were being written."""
    parent, stem = (folder / name).parent, Path(name).name
    listed = [folder / file for file in entry.get("files", ())]
    if parent.is_dir():
        listed += parent.glob(f".{_escaped(stem)}.*")
        listed += [] if entry else parent.glob(f"{_escaped(stem)}.*")
    return [path for path in listed if _is_inside(folder, path.parent)]


def _is_inside(folder: Path, place: Path) -> bool:
    """Whether a folder is the stage's or one below, with no link on the way and no step out of it."""
    below = place.relative_to(folder).parts if place.is_relative_to(folder) else ("..",)
    steps = [folder.joinpath(*below[:n]) for n in range(1, len(below) + 1)]
    return ".." not in below and not any(step.is_symlink() for step in steps)


def _escaped(stem: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in stem)


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(item.group or item.name, []).append(item)
    return list(found.values())


def _made(work: Work, todo: Sequence[Item], jobs: int, single_thread: bool) -> Iterator[tuple[str, Sequence[Path]]]:
    """(name, files) of each item as it is finished, in whatever order within its wave; then the first failure."""
    from tqdm import tqdm

    order, failures = [item.name for item in todo], dict[str, UserError]()
    with tqdm(total=len(todo), unit="items", disable=None, leave=False) as bar:
        for wave in sorted({item.wave for item in todo}):
            groups = _groups([item for item in todo if item.wave == wave])
            for group, result in _results(work, groups, min(jobs, len(groups)), single_thread):
                bar.update(len(group))
                if isinstance(result, UserError):
                    failures[group[0].name] = result
                else:
                    yield from result.items()
            if failures:
                raise failures[min(failures, key=order.index)]


Result = tuple[Sequence[Item], Mapping[str, Sequence[Path]] | UserError]


def _results(work: Work, groups: Sequence[Sequence[Item]], jobs: int, single_thread: bool) -> Iterator[Result]:
    if jobs > 1:
        from joblib import Parallel, delayed

        parallel = Parallel(n_jobs=jobs, batch_size=1, pre_dispatch="2*n_jobs", return_as="generator_unordered")
        yield from parallel(delayed(_worked)(work, group, single_thread) for group in groups)
    else:
        yield from (_worked(work, group, single_thread) for group in groups)


def _worked(work: Work, group: Sequence[Item], single_thread: bool) -> Result:
    from threadpoolctl import threadpool_limits

    try:
        with threadpool_limits(1 if single_thread else None):
            return group, work(group)
    except UserError as error:
        return group, error
