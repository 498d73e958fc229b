"""What each MLflow run says, as plain values. Pure functions of the study's tables."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from sae_transfer.probing import kinds
from sae_transfer.results import cells

FORMAT = 3  # part of every fingerprint: a change of what runs say makes new ones
IDENTITY = "model layer space sae train test in_domain train_variation test_variation n_train n_test n_groups".split()
CHOICES = ("n_features", "C")  # what A's training rows chose for a probe
METRICS = "auc auc_low auc_high accuracy cv_auc delta_residual delta_residual_low delta_residual_high".split()
AUC = METRICS[:3]  # of a baseline or a control
BESIDE = {"residual": ("layer", "train", "test"), "text_tfidf": ("train", "test"), "verbal": ("test",)}
"""Probes of other spaces that a reader compares a run with, and what they have in common with it."""
CEILING = "target_trained"
IN_PARAMS = "model layer space sae train test in_domain probe family".split()  # no columns of a run's own table
NOT_OF_RESULTS = ("tracking", "sweep", "jobs")  # sections of the params that change no number of results/
RESAMPLING = {"transfer": ("resamples",), "bootstrap": ("resamples", "seeds")}
"""Params that change intervals alone: a study under others of them is the same study, measured again."""
MOST_FEATURES = 900  # a tag holds 8,000 characters; the table has all


@dataclass(frozen=True)
class Model:
    """A saved probe; `auc` holds its AUC by the name of the test set."""

    name: str
    kind: str
    params: Mapping[str, str]
    auc: Mapping[str, float]


@dataclass(frozen=True)
class Content:
    """All that a run says. `tables` (JSON text in pandas' split orientation) and `files` are artifacts by name.

    `models` come from the run; `datasets` are what they were tested on, digests by name. `origin` (commit, stage, its
    md5) is told too, but is no part of the fingerprint: the same numbers from another commit are the same run.
    """

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = "FINISHED"
    tables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    models: Sequence[Model] = ()
    datasets: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        return digest([FORMAT, {name: value for name, value in vars(self).items() if name != "origin"}])

    @cached_property
    def measured(self) -> str:
        """A digest of params, numbers and models, without the bounds of intervals, which come from resamples."""
        bounds = ("_low", "_high")
        points = {name: value for name, value in self.metrics.items() if not name.endswith(bounds)}
        return digest([FORMAT, dict(self.params), points, self.models, dict(self.datasets)])


def digest(value: Any) -> str:
    return _md5(json.dumps(value, sort_keys=True, default=lambda x: _md5(x) if isinstance(x, bytes) else vars(x)))


def _md5(value: str | bytes) -> str:
    data = value.encode() if isinstance(value, str) else value
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def study(
    name: str,
    params: Mapping[str, Any],
    numbers: Mapping[str, float],
    verdict: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    files: Mapping[str, bytes],
    origin: Mapping[str, str],
) -> Content:
    """The parent run: what decides the study's results, its headline numbers, its verdict, tables, files."""
    settings = {key: value for key, value in params.items() if key not in NOT_OF_RESULTS}  # a URI may hold a password
    resampled = {f"{section}.{key}" for section, keys in RESAMPLING.items() for key in keys}
    leaves = {plain(name): _text(value) for name, value in _leaves(settings)}
    return Content(
        name=f"{name} · {params['model']['name']}",
        params={key: value for key, value in leaves.items() if key not in resampled},
        metrics={plain(key): float(value) for key, value in numbers.items() if math.isfinite(value)},
        tags={key: value for key, value in leaves.items() if key in resampled}
        | {"charts": "yes", "mlflow.note.content": "\n\n".join(verdict)},
        tables={f"{file}.json": as_json(table) for file, table in tables.items()},
        files=files,
        origin=origin,
    )


def transfer_table(table: pd.DataFrame) -> pd.DataFrame:
    """The transfer table as the parent run shows it: the probes, short enough to open at once."""
    rows = cells.headline(table)
    rows = rows[rows["probe"].map(kinds.role) == "probe"]
    return rows[["space", "key", "train", "test", *METRICS, "feature_ids", "n_train", "n_test"]]


def cell_runs(
    table: pd.DataFrame,
    shared: Mapping[str, Mapping[str, str]],
    hashes: Mapping[str, str],
    features: Mapping[tuple[str, str], Mapping[str, pd.DataFrame]],
    origin: Mapping[str, str],
) -> Iterator[Content]:
    """One run for each (space, A, B), by A, then B, SAEs first.

    Args:
        table: the transfer table of every space.
        shared: params by space that the table lacks (what identifies the model and the SAE).
        hashes: of the datasets' files, by name.
        features: by (space, A), then by kind of probe, what its features are.
        origin: tags that say where the numbers were made.
    """
    settings = _all_settings(table)
    listed = {place: {f"{key}_features.json": as_json(of[key]) for key in of} for place, of in features.items()}
    rows = cells.headline(table).to_dict("records")
    others = {_place(row["key"], row): row for row in rows if row["key"] in BESIDE}
    parts: dict[tuple[str, str, str], list[dict[Any, Any]]] = {}
    for row in rows:
        parts.setdefault((row["space"], row["train"], row["test"]), []).append(row)
    names = {name: i for i, name in enumerate(cells.datasets(table))}
    order = sorted(parts, key=lambda of: (names[of[1]], names[of[2]], parts[of][0]["sae"] == ""))
    for space, train, test in order:
        own = parts[space, train, test]
        beside = [others[place] for key in BESIDE if (place := _place(key, own[0])) in others]
        pins = {f"{role}_hash": hashes[name] for role, name in (("train", train), ("test", test)) if name in hashes}
        artifacts = {**listed.get((space, train), {}), "all_settings.json": settings[space, train, test]}
        yield _cell(own, beside, {**shared.get(space, {}), **pins}, artifacts, origin)


def _place(key: str, row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return key, *(row[name] for name in BESIDE[key])


def _cell(
    own: Sequence[Mapping[Any, Any]],
    beside: Sequence[Mapping[Any, Any]],
    shared: Mapping[str, str],
    tables: Mapping[str, str],
    origin: Mapping[str, str],
) -> Content:
    probes = [row for row in own if kinds.role(row["probe"]) == "probe"]
    about = (probes or own)[0]  # others may have read B's rows and not A's
    choices = {f"{row['key']}.{name}": row[name] or None for row in probes for name in CHOICES}  # 0 features: dense
    ids = {row["key"]: row["feature_ids"].split()[:MOST_FEATURES] for row in probes}
    params = {name: about[name] for name in IDENTITY} | choices
    role = ("sae" if about["sae"] else "residual") if probes else "baseline"
    charted = {"charts": "yes"} if role == "sae" and not about["in_domain"] else {}
    return Content(
        name=f"{about['train']} \N{RIGHTWARDS ARROW} {about['test']} \N{MIDDLE DOT} {about['space']}",
        params={name: _text(value) for name, value in params.items() if value != "" and not pd.isna(value)}
        | dict(shared),
        metrics=_metrics([*beside, *own]),
        tags={"domain": "in domain" if about["in_domain"] else "OOD", "role": role, **charted}
        | {f"{key}.features": _searchable(listed) for key, listed in ids.items() if listed},
        tables=tables,
        origin=origin,
    )


def _metrics(rows: Sequence[Mapping[Any, Any]]) -> dict[str, float]:
    """Numbers by `<key>.<name>`. What was trained on B is no probe of A's run: it is the ceiling of one that was."""
    found: dict[str, float] = {}
    for row in rows:
        key, role = row["key"], kinds.role(row["probe"])
        if row["probe"] == CEILING:
            found[f"{row['family']}.ceiling_auc"] = float(row["auc"])
        else:
            found |= {f"{key}.{name}": float(row[name]) for name in (METRICS if role == "probe" else AUC)}
    for name in [name for name in found if name.endswith(".ceiling_auc")]:
        key = name.removesuffix(".ceiling_auc")
        found[f"{key}.ceiling_gap"] = found[name] - found.get(f"{key}.auc", math.nan)
    return {name: round(value, 6) for name, value in found.items() if math.isfinite(value)}


def _searchable(ids: Sequence[str]) -> str:
    """One id as it is; several with a space at both ends, so that `LIKE "% 17 %"` finds 17 and not 170."""
    return ids[0] if len(ids) == 1 else f" {' '.join(ids)} "


def _all_settings(table: pd.DataFrame) -> dict[Any, str]:
    """By (space, A, B): every rank, N, size and template, not only those that the training data chose."""
    keyed = cells.keyed(table).reset_index(drop=True)
    shown = ["key", *(column for column in table.columns if column not in IN_PARAMS)]
    values = _rows(keyed[shown])
    parts = keyed.groupby(["space", "train", "test"], sort=False).indices
    return {
        place: json.dumps({"columns": shown, "data": [values[row] for row in rows]}) for place, rows in parts.items()
    }


def as_json(table: pd.DataFrame) -> str:
    """The table as MLflow's UI reads it; missing values are null. pandas' own way takes twice as long."""
    return json.dumps({"columns": list(table.columns), "data": _rows(table)})


def _rows(table: pd.DataFrame) -> list[list[Any]]:
    values: list[list[Any]] = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return values


def _leaves(values: Mapping[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every value of nested mappings."""
    for name, value in values.items():
        here = (*place, str(name))
        yield from _leaves(value, here) if isinstance(value, Mapping) else [(".".join(here), value)]


def plain(name: str) -> str:
    """The name with `_` for each character that MLflow's names refuse."""
    return re.sub(r"[^\w.\-]", "_", name)


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)
