"""pins/hub.json: which commit of every hub repository the studies here use, in the weights' place.

`{"google/gemma-2-9b-it": "<40 hex digits>", ...}`, the model as `name@revision` where params ask for a revision. What
the hub did not tell is `unpinned`: no commit is ever invented.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.model import hub

FILE = Path("pins/hub.json")
UNPINNED = "unpinned"


def key(repo: str, revision: str | None = None) -> str:
    return f"{repo}@{revision}" if revision else repo


def read(path: Path) -> dict[str, str]:
    """Every repository of the file with its commit, or `unpinned`.

    Raises:
        UserError: missing, not JSON, or a value that is neither.
    """
    found = files.read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected {{repository: commit}}; `sae-transfer preset pin` writes it")
    for repo, commit in found.items():
        if commit != UNPINNED and not re.fullmatch(r"[0-9a-f]{40}", str(commit)):
            raise UserError(f"{path}: {repo} = {commit!r} is no commit; `sae-transfer preset pin --update` finds it")
    return found


def entry(repo: str, revision: str | None = None, root: Path = Path()) -> str:
    """What the pins say of a repository that a study uses: its commit, or `unpinned`.

    Raises:
        UserError: as `read`, or they do not name it.
    """
    name = key(repo, revision)
    if (found := read(root / FILE).get(name)) is None:
        raise UserError(f"{FILE}: does not name {name}; run `sae-transfer preset pin`")
    return found


def commit(repo: str, revision: str | None = None, root: Path = Path()) -> str | None:
    """The commit that a repository is pinned to; None where it is not. Raises as `read`, but for a missing file."""
    found = read(root / FILE).get(key(repo, revision), UNPINNED) if (root / FILE).exists() else UNPINNED
    return None if found == UNPINNED else found


def resolve(
    wanted: Iterable[tuple[str, str | None]], known: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The pins of (repository, revision) pairs, and why some are unpinned. What is pinned in `known` stays."""
    pins, reasons = dict[str, str](), dict[str, str]()
    for repo, revision in wanted:
        name = key(repo, revision)
        pins[name] = known.get(name, UNPINNED)
        if pins[name] == UNPINNED:
            try:
                pins[name] = hub.resolve(repo, revision or "main")
            except UserError as error:
                reasons[name] = str(error)
    return pins, reasons
