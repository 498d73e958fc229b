"""A study checked before it runs: all that params, local files and local configurations can tell, in seconds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.core.errors import UserError
from sae_transfer.core.files import missing
from sae_transfer.data import cues
from sae_transfer.data.example import Example
from sae_transfer.data.loaders import loader_registry
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.data.overlap import Content, normalised, shared
from sae_transfer.data.prompt_templates import render
from sae_transfer.data.sources import restore_command
from sae_transfer.model import pins
from sae_transfer.model.saes import layer_of
from sae_transfer.pipeline import imports, presets, versioning
from sae_transfer.pipeline.params import Params
from sae_transfer.pipeline.study import Study
from sae_transfer.results.warnings import Notice, by_severity, few_groups, shared_rows
from sae_transfer.stats.intervals import MIN_GROUPS, effective_groups


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


@dataclass(frozen=True)
class _Dataset:
    """A dataset's rows as loaded, and those that the study takes."""

    pool: list[Example]
    train: list[Example]
    test: list[Example]


def _loaded(params: Params, name: str) -> _Dataset:
    rows, test_rows = loader_registry.load(name, params.datasets[name])
    train, test = loader_registry.split(name, params.datasets[name], params.seed, rows, test_rows)
    return _Dataset([*rows, *(test_rows or ())], train, test)


def notes(
    params: Params, names: Sequence[str] | None = None, ends: Mapping[str, list[str]] | None = None
) -> list[Notice]:
    """What the datasets leave open: rows that they share, what tells the label without a model, small test sets.

    Args:
        params: of the study.
        names: which datasets; by default the study's.
        ends: by dataset, the last token of each test row's prompt, where a tokenizer is at hand.

    Raises:
        UserError: a dataset cannot be loaded or split.
    """
    datasets = {name: _loaded(params, name) for name in (params.study.datasets if names is None else names)}
    rows = {name: _rows(params.datasets[name], of.test, (ends or {}).get(name)) for name, of in datasets.items()}
    told = [Notice("warning", "cue", f"{said}.") for said in cues.warnings(rows)]
    return by_severity([*_shared_rows(datasets), *told, *_few_groups(datasets)])


def _rows(dataset: DatasetParams, test: Sequence[Example], ends: list[str] | None = None) -> pd.DataFrame:
    table = pd.DataFrame({name: [getattr(row, name) for row in test] for name in ("context", "question", "label")})
    prompts = [render(dataset.template, row.context, row.question, finished=row.finished) for row in test]
    return table.assign(prompt=prompts) if ends is None else table.assign(prompt=prompts, ends=ends)


def _few_groups(datasets: Mapping[str, _Dataset]) -> Iterator[Notice]:
    for name, of in datasets.items():
        n = effective_groups(np.array([row.label for row in of.test]), np.array([row.group for row in of.test]))
        if n < MIN_GROUPS:
            yield few_groups(name, n, MIN_GROUPS)


def _shared_rows(datasets: Mapping[str, _Dataset]) -> Iterator[Notice]:
    pools, trains, tests = (
        {name: [_content(row) for row in getattr(of, part)] for name, of in datasets.items()}
        for part in ("pool", "train", "test")
    )
    for a, b in combinations(datasets, 2):
        if n := int(shared(pools[b], pools[a]).sum()):
            told = f"{a} and {b} share rows: {n:,} of the {len(pools[b]):,} rows of {b} stand in {a} too."
            yield Notice("note", b, told)
    for a, b in permutations(datasets, 2):
        if n := int(shared(tests[b], trains[a]).sum()):
            yield shared_rows(a, b, n, len(tests[b]))


def _unpinned(params: Params) -> Iterator[Notice]:
    for name in presets.unpinned(params):
        told = f"{name} is unpinned: another run may take another version; `sae-transfer preset pin` pins it."
        yield Notice("warning", name, told)


def _content(row: Example) -> Content:
    return normalised(row.context), normalised(row.question)
