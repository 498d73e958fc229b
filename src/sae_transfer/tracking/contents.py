"""What each MLflow run says, as plain values. Pure functions of the study's tables."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from sae_transfer import cells

FORMAT = 1  # part of every fingerprint: a change of what runs say makes new ones
SHOWN_FEATURES = 10  # a tag holds the first few; the table artifact has all
IN_PARAMS = "model layer space sae train test in_domain probe family key".split()  # the same in all of a cell's rows
OF_TEST = ("test", "n_test", "n_groups")
NOT_PARAMS = ("in_domain", "condition", "selected", "feature_ids", "probe")


@dataclass(frozen=True)
class Dataset:
    """An input of a run; `digest` is its md5 in DVC, `context` its role."""

    name: str
    digest: str
    source: str
    context: str


@dataclass(frozen=True)
class Content:
    """All that a run says. `tables` are artifacts by file name: JSON text in pandas' split orientation.

    `origin` (commit, stage, its md5) is told too, but is no part of the fingerprint: the same numbers from another
    commit are the same run.
    """

    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    status: str = "FINISHED"
    datasets: tuple[Dataset, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        content = {key: value for key, value in asdict(self).items() if key != "origin"}
        return digest([FORMAT, content])


@dataclass(frozen=True)
class Family:
    """The cells of one probe kind trained on one A in one space, one for each B: a row of the train x test matrix."""

    name: str
    params: Mapping[str, str]
    cells: tuple[Content, ...]

    @cached_property
    def fingerprint(self) -> str:
        return digest([FORMAT, self.name, [cell.fingerprint for cell in self.cells]])


def digest(value: Any) -> str:
    return hashlib.md5(json.dumps(value, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def families(
    table: pd.DataFrame,
    shared: Mapping[str, Mapping[str, str]],
    datasets: Mapping[str, tuple[str, str]],
    features: Mapping[tuple[str, str, str], pd.DataFrame],
    origins: Mapping[str, Mapping[str, str]],
) -> Iterator[Family]:
    """The runs of a study, grouped by (space, A, kind of probe), in the table's order.

    Args:
        table: the transfer table of every space.
        shared: params by space that the table lacks (what identifies the model and the SAE).
        datasets: (md5, path) by name.
        features: tables of features by (space, A, key), for the kinds that have one.
        origins: tags by space that say where its numbers were made.
    """
    settings = _all_settings(table)
    for place, rows in cells.headline(table).groupby(["space", "train", "key"], sort=False):
        space, train, key = map(str, place)
        listed = features.get((space, train, key))
        tables = {} if listed is None else {"features.json": as_json(listed)}
        made = tuple(
            _cell(
                row,
                shared[space],
                datasets,
                {"all_settings.json": settings[space, train, row["test"], key]} | tables,
                origins[space],
            )
            for row in rows.to_dict("records")
        )
        yield Family(plain(f"{space}_{key}_{train}"), _shared(made), made)


def _shared(made: tuple[Content, ...]) -> dict[str, str]:
    """The params that say the same in all cells, other than those of the test set."""
    same = set.intersection(*(set(cell.params.items()) for cell in made))
    return {name: value for name, value in made[0].params.items() if (name, value) in same and name not in OF_TEST}


def _all_settings(table: pd.DataFrame) -> dict[Any, str]:
    """By (space, A, B, key): every rank, N, size and template, not only those that the training data chose."""
    keyed = cells.keyed(table).reset_index(drop=True)
    shown = [column for column in keyed.columns if column not in IN_PARAMS]
    values = keyed[shown].astype(object).where(keyed[shown].notna(), None).to_numpy().tolist()
    parts = keyed.groupby(["space", "train", "test", "key"], sort=False).indices
    # json.dumps: pandas' own takes 5 ms a table
    return {
        place: json.dumps({"columns": shown, "data": [values[row] for row in rows]}) for place, rows in parts.items()
    }


def _cell(
    row: Mapping[Any, Any],
    shared: Mapping[str, str],
    datasets: Mapping[str, tuple[str, str]],
    tables: Mapping[str, str],
    origin: Mapping[str, str],
) -> Content:
    names = list(row)
    start = names.index("auc")  # before it: what identifies the row; from it on: what was measured
    identity = {name: row[name] for name in names[:start] if name not in NOT_PARAMS}
    measured = {name: row[name] for name in names[start:] if name != "key"}
    metrics = {name: float(value) for name, value in measured.items() if _is_number(value)}
    told = {name: str(value) for name, value in measured.items() if isinstance(value, str | bool) and value != ""}
    ids = str(row["feature_ids"]).split()
    pair = f"{row['train']} \N{RIGHTWARDS ARROW} {row['test']}"
    return Content(
        name=f"{pair} \N{MIDDLE DOT} {row['key']} \N{MIDDLE DOT} {row['space']}",
        params={name: _text(value) for name, value in identity.items() if _is_told(value)}
        | {"probe": row["key"]}
        | dict(shared),
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        tags=told
        | {"domain": "in domain" if row["in_domain"] else "OOD"}
        | {"role": cells.role(row["probe"])}
        | ({"top_features": " ".join(ids[:SHOWN_FEATURES])} if ids else {}),
        datasets=_inputs(row, datasets),
        tables=tables,
        origin=origin,
    )


def _inputs(row: Mapping[Any, Any], datasets: Mapping[str, tuple[str, str]]) -> tuple[Dataset, ...]:
    """What was read: the model's own words train on nothing, what `uses_target` on B and never on A."""
    train, test = row["train"], row["test"]
    if row["n_train"] == 0:
        roles: tuple[tuple[str, str], ...] = ((test, "test"),)
    elif row["uses_target"] or train == test:  # MLflow keeps one input a dataset
        roles = ((test, "train and test"),)
    else:
        roles = ((train, "train"), (test, "test"))
    return tuple(Dataset(name, *datasets[name], role) for name, role in roles if name in datasets)


def study(
    name: str,
    params: Mapping[str, Any],
    numbers: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    figures: str,
    origin: Mapping[str, str],
) -> Content:
    """The parent run: the whole params file, the summary of results/metrics.json, and the analyses' tables.

    `figures` is the digest of the figures that it carries.
    """
    metrics = {plain("/".join(place), "/"): float(value) for place, value in leaves(numbers) if value is not None}
    settings = {key: value for key, value in params.items() if key != "tracking"}  # its URI may hold a password
    return Content(
        name=f"{name}: {params['model']['name']}",
        params={plain(".".join(place), "/"): _text(value) for place, value in leaves(settings)},
        metrics=metrics,
        tags={"figures_md5": figures},
        tables={f"{file}.json": as_json(table) for file, table in tables.items()},
        origin=origin,
    )


def leaves(values: Mapping[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(names, value) of every value of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*place, str(name)))
        else:
            yield (*place, str(name)), value


def as_json(table: pd.DataFrame) -> str:
    """The table as MLflow's UI reads it; missing values are null."""
    return table.to_json(orient="split", index=False, double_precision=6)


def plain(name: str, also: str = "") -> str:
    """The name with `_` for each character that MLflow's names refuse."""
    return re.sub(rf"[^\w.\- {also}]" if also else r"[^\w\-]", "_", name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_told(value: Any) -> bool:
    return bool(value != "" and not pd.isna(value))


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)
