"""`dvc repro` with one progress bar over all stages, and without what DVC says of itself."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

from sae_transfer.core import items
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import read_yaml

COMMAND = (sys.executable, "-m", "dvc", "repro")
BEGUN = re.compile(r"(?:Running stage|Stage) '([^']+)'")
DVC_SAYS = ("Updating lock file", "Generating lock file", "To track the changes", "Use `dvc push`")
REFRESH = 0.5  # seconds
Told = tuple[Literal["begun", "said", "complaint"], str]


def reproduce(root: Path, say: Callable[[str], object]) -> None:
    """Runs `dvc repro`. On a terminal a bar shows how many stages are over, and how much of the present one.

    Args:
        root: the project's.
        say: takes each line that a stage prints.

    Raises:
        UserError: DVC or a stage refused.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # a stage's `python` is this one
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "true"}
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    stage, complaints = "", list[str]()
    with subprocess.Popen(COMMAND, cwd=root, env=environment, **piped) as process, _bar(root) as progress:
        for kind, text in follow(process.stdout or ()):
            if kind == "begun":
                stage = progress.stage = text
            elif kind == "said":
                say(text)
            else:
                complaints.append(text)
    if process.returncode and stage:
        raise UserError(f"stage {stage} stopped; mend what it says above, then run this again to go on from there")
    if process.returncode:
        raise UserError(f"DVC: {' '.join(complaints).removeprefix('ERROR: ') or 'it stopped'}")


def follow(lines: Iterable[str]) -> Iterator[Told]:
    """What DVC's output tells: that a stage begins (or is skipped), what it prints, and other lines of DVC's own."""
    inside = False
    for line in (line.rstrip("\n") for line in lines):
        if begun := BEGUN.match(line):
            inside = False
            yield "begun", begun[1]
        elif line.startswith(DVC_SAYS):
            inside = False
        elif line.startswith("> "):
            inside = True
        elif inside and not line.startswith("ERROR: "):
            yield "said", line
        elif line and not line.endswith("didn't change, skipping"):
            inside = False
            yield "complaint", line


@dataclass
class _Progress:
    """How far a run is: the stages with the folders of their items, and the one that runs."""

    folders: Mapping[str, Path | None]
    stage: str = ""

    @property
    def done(self) -> float:
        """How many stages are over, with the share of the present one's items that are made."""
        if self.stage not in self.folders:
            return 0.0
        folder = self.folders[self.stage]
        return list(self.folders).index(self.stage) + (items.share_made(folder) if folder else 0.0)


@contextmanager
def _bar(root: Path) -> Iterator[_Progress]:
    from tqdm import tqdm

    progress, over = _Progress(stages(root)), Event()
    with tqdm(
        total=len(progress.folders), disable=None, leave=False, bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed}"
    ) as bar:

        def refresh() -> None:
            while not over.wait(REFRESH):
                bar.n = progress.done
                bar.set_description(progress.stage)

        Thread(target=refresh, daemon=True).start()
        try:
            yield progress
        finally:
            over.set()


def stages(root: Path) -> dict[str, Path | None]:
    """The stages of dvc.yaml in their order, each with the folder of its items; None where it has none."""
    found = read_yaml(root / "dvc.yaml").get("stages") or {}  # what is wrong in it DVC says itself
    return {name: _folder(root, stage.get("outs") or ()) for name, stage in found.items() if isinstance(stage, dict)}


def _folder(root: Path, outs: Iterable[Any]) -> Path | None:
    names = [str(next(iter(out))) if isinstance(out, dict) else str(out) for out in outs]
    return next((root / name for name in names if name.startswith("artifacts/") and not Path(name).suffix), None)
