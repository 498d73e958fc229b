"""Activations that another tool cached, as a dataset of the study: no model runs on it.

Such a dataset has `activations` in its section of the params: a file with the residual streams of its rows, in the
order of its rows' file (see `artifacts.imported`). Its identity is the hash of both files.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.artifacts import activations, imported
from sae_transfer.core import files, hashing, paths
from sae_transfer.core.errors import UserError
from sae_transfer.core.names import check_name
from sae_transfer.core.params_editing import editing, flow
from sae_transfer.core.params_section import PARAMS_FILE, parse
from sae_transfer.data import splits
from sae_transfer.data.loaders import loader_registry, table
from sae_transfer.data.loaders.loader_registry import Columns, DatasetParams
from sae_transfer.data.sources import EXTERNAL
from sae_transfer.data.splits import Quota
from sae_transfer.model import activation_files
from sae_transfer.pipeline.study import Study

ROWS, ARRAYS = "rows.jsonl", "activations.safetensors"
IMPORTED = "imported"  # where the activations of a model say what ran it
TRAIN, TEST = 0.5, 0.4  # of the smaller class; the rest is for groups that cannot be torn apart


def ids(study: Study, dataset: str) -> list[str]:
    """The ids of a dataset's rows as its file has them, which is the order of its activations."""
    rows, test_rows = loader_registry.load(dataset, study.dataset(dataset))
    return [row.id for row in (*rows, *(test_rows or ()))]


def streams(study: Study, dataset: str, layers: Sequence[int], wanted: Sequence[str]) -> dict[int, NDArray[np.float32]]:
    """The imported residual streams {layer: [n, d_model]} of the rows with these ids [n], in their order.

    Raises:
        UserError: the file does not fit the rows or the model (see `check`).
    """
    place = {id_: i for i, id_ in enumerate(ids(study, dataset))}
    at = [place[id_] for id_ in wanted]
    return {layer: stream[at] for layer, stream in _checked(study, dataset, layers, len(place)).items()}


def check(study: Study, dataset: str) -> None:
    """Looks at a dataset's activations as the study will read them.

    Raises:
        UserError: the file is missing or damaged; it lacks a layer of the study, has another number of rows than the
            dataset's file or another width than the model, or NaN or infinity.
    """
    _checked(study, dataset, study.params.model.layers, len(ids(study, dataset)))


def _checked(study: Study, dataset: str, layers: Sequence[int], n: int) -> dict[int, NDArray[np.float32]]:
    path = study.path(_activations(study, dataset))
    found = {layer: imported.read(path, layer, n) for layer in layers}
    _check_widths(study, {layer: stream.shape[1] for layer, stream in found.items()}, str(path))
    return found


def _check_widths(study: Study, widths: Mapping[int, int], where: str) -> None:
    """All layers are as wide as the model, where that is known here, and as one another."""
    known = _width(study)
    wanted = known or next(iter(widths.values()))
    for layer, width in widths.items():
        if width != wanted:
            of = f"{study.params.model.name} has {known}" if known else f"another layer has {wanted}"
            raise UserError(f"{where}: layer {layer} has {width} numbers a row, but {of}; choose those of one model")


def _width(study: Study) -> int | None:
    """d_model, from the model's folder or from what was extracted before."""
    config = Path(study.model.name) / "config.json"
    if config.is_file():
        about = files.read_json(config)
        about = about.get("text_config", about)
        width: int | None = about.get("hidden_size") or about.get("n_embd")
        return width
    folder = study.path(paths.ACTIVATIONS) / study.layers[0].name
    made = [folder / f"{name}.0.safetensors" for name in study.datasets if not study.params.datasets[name].activations]
    return next((activations.read_width(path) for path in made if path.is_file()), None)


def _activations(study: Study, dataset: str) -> Path:
    path = study.params.datasets[dataset].activations
    assert path is not None
    return path


def about(study: Study, dataset: str, prompts: Sequence[str]) -> dict[str, Any]:
    """What identifies imported activations, in the words of `extraction.identity`."""
    path = _activations(study, dataset)
    return {
        "model": study.params.model.name,
        "source": str(path),
        "revision": None,
        "pinned": True,
        "weights_sha256": IMPORTED,
        "activations_sha256": hashing.sha256(study.path(path)),
        "adds_bos": True,  # whoever made them knows
        "n": len(prompts),
        "prompts_sha256": hashing.digest(list(prompts)),
        "transformers": IMPORTED,
        "torch": IMPORTED,
    }


@dataclass(frozen=True)
class Brought:
    """What was imported: where it lies, and how many rows, layers and columns it has."""

    folder: Path
    rows: int
    layers: tuple[int, ...]
    width: int
    section: str


def bring(
    study: Study,
    name: str,
    rows: Path,
    arrays: Sequence[Path],
    *,
    columns: dict[str, str],
    layer: int | None = None,
    n_train: int | None = None,
    n_test: int | None = None,
) -> Brought:
    """Copies rows and activations into data/external/<name>, and adds the dataset to params.yaml.

    Args:
        study: which gets the dataset.
        name: of the dataset; one that was imported before is replaced.
        rows: CSV or JSONL with a label and, as far as there are any, `prompt` (or `question` and `context`), `id` and
            `group`; row by row what the arrays have.
        arrays: .safetensors, .npz or .npy files; the names of their arrays say the layers.
        columns: how the file's columns are called, where their names are others (see `Columns`).
        layer: of the only array there is, whatever its name.
        n_train: training rows, half of each label; by default about half of what is there.
        n_test: test rows.

    Raises:
        UserError: whatever does not fit, before anything is written.
    """
    check_name(name, "dataset")
    known = study.params.datasets.get(name)
    if known is not None and known.activations is None:
        raise UserError(f"dataset {name} is in params.yaml already, and not from an import; choose another name")
    records, has_prompts = _records(rows, columns)
    found = _layers(study, arrays, layer, len(records))
    folder = study.path(EXTERNAL / name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as temporary:
        made = Path(temporary)
        files.write_text(made / ROWS, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in records))
        imported.write(made / ARRAYS, found)
        section = _section(name, made, has_prompts=has_prompts, n_train=n_train, n_test=n_test)
        folder.mkdir(exist_ok=True)
        for file in (ROWS, ARRAYS):
            os.replace(made / file, folder / file)
    _add(study, name, section)
    return Brought(folder, len(records), tuple(found), next(iter(found.values())).shape[1], section)


def _records(path: Path, columns: dict[str, str]) -> tuple[list[dict[str, Any]], bool]:
    """The rows as the loader `table` reads them without any settings, and whether they have prompts."""
    chosen = parse(Columns, dict(columns), "columns")
    if not path.is_file():
        raise files.missing(path, "give a CSV or JSONL file with a label a row")
    first = next((record for _, record in table.records(path)), None)
    if first is None:
        raise UserError(f"{path}: has no rows; give one for each row of the arrays")
    has_prompts = chosen.prompt in first or chosen.question in first
    if not has_prompts:
        chosen = Columns.model_validate(columns | {"prompt": chosen.id})
        if chosen.id not in first:
            raise UserError(f"{path}: has neither prompts nor ids; add a column `prompt`, or a column `id`")
    rows = table.load(path, chosen)
    records = []
    for row in rows:
        id_ = row.id.removeprefix(f"{path.name}:")
        text = {"context": row.context, "question": row.question} if row.context else {"prompt": row.question}
        records.append({"id": id_, "group": row.group, "label": row.label} | (text if has_prompts else {}))
    return records, has_prompts


def _layers(study: Study, arrays: Sequence[Path], layer: int | None, n: int) -> dict[int, NDArray[np.float32]]:
    """The arrays of the study's layers, checked."""
    named = [(f"{path}, {name}", name, array) for path in arrays for name, array in activation_files.read(path).items()]
    if layer is not None and len(named) != 1:
        raise UserError(f"--layer is for one array, and there are {len(named)}; let their names say the layers")
    found: dict[int, NDArray[np.float32]] = {}
    for where, name, array in named:
        of = activation_files.layer_of_name(name) if layer is None else layer
        if of is None:
            raise UserError(f"{where}: the name says no layer; call it layer_<L>, or give --layer for a single array")
        if of in found:
            raise UserError(f"{where}: layer {of} is there twice; leave one out")
        imported.check(array, n, where)
        found[of] = array
    wanted = study.params.model.layers
    if lacking := sorted(set(wanted) - set(found)):
        raise UserError(
            f"layers {list(found)} are given, and the study reads {list(wanted)}; give layer {lacking[0]} too, "
            "or leave it out of model.layers"
        )
    kept = {of: found[of] for of in wanted}
    _check_widths(study, {of: stream.shape[1] for of, stream in kept.items()}, ", ".join(map(str, arrays)))
    return kept


def _section(name: str, made: Path, *, has_prompts: bool, n_train: int | None, n_test: int | None) -> str:
    """The dataset's section of the params on one line, after a look at the rows as `prepare` will take them."""
    columns = Columns() if has_prompts else Columns(prompt="id")
    one = Quota.model_validate(2)
    probing = DatasetParams(loader="table", path=made / ROWS, n_train=one, n_test=one, columns=columns)
    rows, _ = loader_registry.load(name, probing)
    smaller = min(sum(row.label == label for row in rows) for label in (0, 1))
    sizes = [2 * int(smaller * share) if n is None else n for n, share in ((n_train, TRAIN), (n_test, TEST))]
    for n in sizes:
        if n <= 0 or n % 2:
            raise UserError(f"{n} rows to train or to test: give an even number above 0, half of each label")
    train, test = (Quota.model_validate(n) for n in sizes)
    splits.split(rows, None, train, test, 0, name)  # other seeds fill the quotas too, or nearly
    folder = EXTERNAL / name
    wordless = "" if has_prompts else ", columns: {prompt: id}"
    return (
        f"{{loader: table, path: {folder / ROWS}, activations: {folder / ARRAYS}, "
        f"n_train: {sizes[0]}, n_test: {sizes[1]}{wordless}}}"
    )


def _add(study: Study, name: str, section: str) -> None:
    with editing(study.path(PARAMS_FILE), "datasets") as params:
        params["datasets"][name] = flow(section)
        if name not in study.datasets:
            params["study"]["datasets"].append(name)
