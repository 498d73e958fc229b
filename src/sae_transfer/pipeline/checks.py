"""A study checked before it runs: all that params, local files and local configurations can tell, in seconds."""

import json
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.core.errors import UserError
from sae_transfer.core.files import missing
from sae_transfer.data import splits
from sae_transfer.data.example import Example
from sae_transfer.data.loaders import loader_registry
from sae_transfer.data.overlap import overlapping
from sae_transfer.data.sources import restore_command
from sae_transfer.model import pins
from sae_transfer.model.saes import layer_of
from sae_transfer.pipeline import imports, presets, versioning
from sae_transfer.pipeline.params import Params
from sae_transfer.pipeline.study import Study
from sae_transfer.results.warnings import Notice, by_severity, few_groups, shared_rows
from sae_transfer.stats.intervals import MIN_GROUPS, effective_groups

Split = tuple[list[Example], list[Example]]


def check(params: Params) -> list[Notice]:
    """The warnings of a study that has not run.

    Raises:
        UserError: something would stop the study later: a file that is not there, a dataset that does not fill its
            quotas, a layer beyond the model, an SAE that does not fit the model. The message names the param.
    """
    imported = [name for name in params.study.datasets if params.datasets[name].activations]
    if params.model.folder is not None and len(imported) < len(params.study.datasets):
        _check_there("model.name", params.model.folder)
    for repository in presets.from_hub(params):
        pins.entry(*repository)
    config = _json(Path(params.model.name) / "config.json")
    _check_layers(params, config.get("text_config", config))
    for name in params.study.saes:
        _check_sae(params, name, config.get("text_config", config))
    for name in imported:
        imports.check(Study(params), name)
    return by_severity([*_unkept(params), *notes(params), *_unpinned(params)])


def _unkept(params: Params) -> Iterator[Notice]:
    """The files and folders that the study reads, wherever they lie, and that DVC and git do not keep as they are."""
    raw = [path for name in params.study.datasets for path in params.datasets[name].raw_files]
    saes = [params.saes[name].path for name in params.study.saes]
    read = [path for path in (params.model.folder, *saes, *raw) if path is not None]
    for told in versioning.unkept(read):
        yield Notice("warning", "inputs", told)


def _check_there(param: str, path: Path) -> None:
    if not path.exists():
        raise UserError(f"params.yaml: {param} = {missing(path, restore_command(path) or 'correct it')}")


def _json(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _check_layers(params: Params, config: dict[str, Any]) -> None:
    total = config.get("num_hidden_layers") or config.get("n_layer")
    if total and max(params.model.layers) >= total:
        raise UserError(
            f"params.yaml: model.layers has {max(params.model.layers)}, "
            f"but {params.model.name} has {total} layers, 0 to {total - 1}"
        )


def _check_sae(params: Params, name: str, config: dict[str, Any]) -> None:
    sae = params.saes[name]
    if sae.path is None:
        return
    _check_there(f"saes.{name}.path", sae.path)
    about, width = _json(sae.path / "cfg.json"), config.get("hidden_size") or config.get("n_embd")
    if width and about.get("d_in") not in (None, width):
        raise UserError(
            f"params.yaml: saes.{name}: d_in is {about['d_in']}, but {params.model.name} has {width} numbers a token; "
            "choose an SAE of this model"
        )
    hook = (about.get("metadata") or {}).get("hook_name")
    layer = None if hook is None else layer_of(hook)
    if layer is not None and layer != sae.layer:
        raise UserError(f"params.yaml: saes.{name}.layer = {sae.layer}, but its hook is {hook}; set it to {layer}")


def _split(params: Params, name: str) -> Split:
    dataset = params.datasets[name]
    rows, test_rows = loader_registry.load(name, dataset)
    return splits.split(rows, test_rows, dataset.n_train, dataset.n_test, params.seed, name, dataset.question_rule)


def notes(params: Params) -> list[Notice]:
    """What the datasets leave open: test rows that another one trains on, and test sets too small for intervals.

    Raises:
        UserError: a dataset cannot be loaded or split.
    """
    parts = {name: _split(params, name) for name in params.study.datasets}
    return by_severity([*_shared_rows(parts), *_few_groups(parts)])


def _few_groups(split: Mapping[str, Split]) -> Iterator[Notice]:
    for name, (_, test) in split.items():
        n = effective_groups(np.array([row.label for row in test]), np.array([row.group for row in test]))
        if n < MIN_GROUPS:
            yield few_groups(name, n, MIN_GROUPS)


def _shared_rows(split: Mapping[str, Split]) -> Iterator[Notice]:
    parts = {name: [_contents(part) for part in each] for name, each in split.items()}
    for a, b in permutations(parts, 2):
        if n := int(overlapping(parts[b][1], parts[a][0]).sum()):
            yield shared_rows(a, b, n, len(parts[b][1]))


def _unpinned(params: Params) -> Iterator[Notice]:
    for name in presets.unpinned(params):
        told = f"{name} is unpinned: another run may take another version; `sae-transfer preset pin` pins it."
        yield Notice("warning", name, told)


def _contents(rows: list[Example]) -> pd.DataFrame:
    return pd.DataFrame({"context": [row.context for row in rows], "question": [row.question for row in rows]})
