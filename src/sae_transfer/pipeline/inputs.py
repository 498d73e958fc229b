"""inputs: the hash of every dataset, model and SAE that params name -> artifacts/inputs.json, wherever they lie.

DVC depends on this file in their place. So a change of any of them is seen, also outside the project, and a colleague
who pulled the results can go on without them: what is not there keeps the hash that it had. What comes from the hub has
the commit that it is pinned to.
"""

import json
from pathlib import Path
from typing import Any, NoReturn

from sae_transfer.core import files, hashing, paths
from sae_transfer.model import pins, saes
from sae_transfer.model.model_params import SaeParams
from sae_transfer.pipeline.study import Study

CACHE = paths.INPUTS.with_name(".hashes.json")  # of large files, for the next run on this machine


def run(study: Study) -> None:
    """Hashes what is there and writes the file where anything differs."""
    path = study.path(paths.INPUTS)
    known = _known(path)
    of = _Inputs(study, known)
    found = {
        "datasets": {
            name: of.files(study.params.datasets[name].raw_files, "datasets", name) for name in study.datasets
        },
        "model": of.model(),
        "saes": {space.name: of.sae(space.sae) for space in study.saes},
        "read": of.read,
    }
    of.hashes.save()
    if found != known:
        files.write_json(path, found)


def _known(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # no run yet, or it is damaged: everything is hashed anew
        return {}


def read(study: Study) -> dict[str, Any]:
    """The hashes: `datasets` by name, `model`, `saes` by name; `read` is where they were.

    Raises:
        UserError: the stage has not run, or its file is damaged.
    """
    found = files.read_json(path := study.path(paths.INPUTS))
    if not (isinstance(found, dict) and {"datasets", "model", "saes"} <= found.keys()):
        raise files.damaged(path, ValueError("no hashes of datasets, model and SAEs"))
    return found


class _Inputs:
    """The hashes of what params name. What is not there keeps the hash that it had, if it was looked for there too."""

    def __init__(self, study: Study, known: Any) -> None:
        self.study, self.known = study, known
        self.hashes = hashing.Remembered(study.path(CACHE))
        self.read: dict[str, list[str]] = {}

    def dataset(self, name: str) -> str:
        return self.files(self.study.params.datasets[name].raw_files, "datasets", name)

    def model(self) -> str:
        model = self.study.params.model
        if all(self.study.params.datasets[name].activations for name in self.study.datasets):
            return "no model runs: every dataset brings its activations"
        if model.folder is not None:
            return self.files([model.folder], "model")
        return f"{pins.key(model.name, model.revision)} {pins.entry(model.name, model.revision, self.study.root)}"

    def sae(self, name: str) -> str:
        sae: SaeParams = self.study.params.saes[name]
        if sae.path is not None:
            return self.files([sae.path], "saes", name)
        return f"{sae.release} {sae.id} {pins.entry(saes.repository(str(sae.release)), root=self.study.root)}"

    def files(self, of: list[Path], *place: str) -> str:
        self.read[" ".join(place)] = list(map(str, of))
        here = [self.study.path(path) for path in of]
        if absent := [path for path, found in zip(of, here, strict=True) if not found.exists()]:
            return self._known(place) or _refuse(absent[0])
        return hashing.digest([hashing.tree_sha256(path, self.hashes) for path in here])

    def _known(self, place: tuple[str, ...]) -> str:
        if _at(self.known, "read", " ".join(place)) != self.read[" ".join(place)]:
            return ""
        found = _at(self.known, *place)
        return found if isinstance(found, str) else ""


def _at(value: Any, *place: str) -> Any:
    for name in place:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _refuse(path: Path) -> NoReturn:
    raise files.missing(path)
