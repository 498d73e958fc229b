"""inputs: the hash of every dataset, model and SAE that params name -> artifacts/inputs.json, wherever they lie.

DVC depends on this file in their place. So a change of any of them is seen, also outside the project, and a colleague
who pulled the results can go on without them: what is not there keeps the hash that it had.
"""

from pathlib import Path
from typing import Any

from sae_transfer.core import files, hashing, paths
from sae_transfer.model import pins, saes
from sae_transfer.model.model_params import SaeParams
from sae_transfer.pipeline.study import Study


def run(study: Study) -> None:
    """Hashes what is there and writes the file where anything differs."""
    path = study.path(paths.INPUTS)
    known = files.read_json(path) if path.exists() else {}
    datasets = {name: study.params.datasets[name].raw_files for name in study.datasets}
    found = {
        "datasets": {name: _hash(study, of, _known(known, "datasets", name)) for name, of in datasets.items()},
        "model": _model(study, _known(known, "model")),
        "saes": {space.name: _sae(study, space.sae, _known(known, "saes", space.name)) for space in study.saes},
    }
    if found != known:
        files.write_json(path, found)


def read(study: Study) -> dict[str, Any]:
    """The hashes: `datasets` by name, `model`, `saes` by name.

    Raises:
        UserError: the stage has not run.
    """
    found: dict[str, Any] = files.read_json(study.path(paths.INPUTS))
    return found


def _known(known: Any, *place: str) -> str:
    for name in place:
        known = known.get(name, {}) if isinstance(known, dict) else {}
    return known if isinstance(known, str) else ""


def _hash(study: Study, of: list[Path], known: str) -> str:
    here = [study.path(path) for path in of]
    if not all(path.exists() for path in here):
        if known:
            return known
        raise files.missing(next(path for path in of if not study.path(path).exists()))
    return hashing.digest([hashing.tree_sha256(path) for path in here])


def _model(study: Study, known: str) -> str:
    model = study.params.model
    if all(study.params.datasets[name].activations for name in study.datasets):
        return "no model runs: every dataset brings its activations"
    if model.identity.suffix == ".json":
        return f"{pins.key(model.name, model.revision)} {_pinned(study, model.identity, model.name, model.revision)}"
    return _hash(study, [model.identity], known)


def _sae(study: Study, name: str, known: str) -> str:
    sae: SaeParams = study.params.saes[name]
    if sae.path is not None:
        return _hash(study, [sae.path], known)
    repo, pinned = saes.repository(str(sae.release)), study.params.study.saes_identity
    return f"{sae.release} {sae.id} {_pinned(study, pinned, repo, None)}"


def _pinned(study: Study, path: Path, repo: str, revision: str | None) -> str:
    """The commit, or `unpinned`."""
    return pins.commit(study.path(path), repo, revision) or pins.UNPINNED
