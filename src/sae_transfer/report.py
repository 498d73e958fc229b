"""What a study found: plain numbers for `dvc metrics diff`, and one page that needs no network. Pure functions."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from sae_transfer import cells, figures
from sae_transfer.cells import Grid, Value
from sae_transfer.features import Health

Numbers = dict[str, Any]  # space -> key -> name -> number, None where it is missing
NO_NUMBER = float("nan")


@dataclass(frozen=True)
class About:
    """What was run. `settings` are told as they are; `sources` by dataset; `health` by SAE, then by dataset."""

    model: str
    settings: Mapping[str, str]
    sources: Mapping[str, str]
    health: Mapping[str, Mapping[str, Health]]
    demo: bool = False


def summary(table: pd.DataFrame) -> Numbers:
    """The numbers of results/metrics.json for each space and kind of probe, rounded to 6 digits."""
    result: Numbers = {}
    for (space, key), rows in cells.headline(table).groupby(["space", "key"], sort=False):
        numbers = _control(rows) if cells.is_control(str(key)) else _transfer(rows)
        result.setdefault(str(space), {})[str(key)] = {name: _plain(number) for name, number in numbers.items()}
    return result


def _transfer(rows: pd.DataFrame) -> dict[str, float]:
    home, away = rows[rows["in_domain"]], rows[~rows["in_domain"]]
    numbers = {
        "auc_in_domain": home["auc"].mean(),
        "auc_ood": away["auc"].mean(),
        "auc_ood_worst": away["auc"].min(),
        "cells_in_domain": int(home["auc"].notna().sum()),
        "cells_ood": int(away["auc"].notna().sum()),
    }
    if (rows["probe"] == "residual").all():
        return numbers
    compared, wins, losses = contest(away)
    return numbers | {
        "cells_compared": compared,
        "share_beats_residual": wins / compared if compared else NO_NUMBER,
        "share_loses_to_residual": losses / compared if compared else NO_NUMBER,
    }


def _control(rows: pd.DataFrame) -> dict[str, float]:
    return {
        "auc": rows["auc"].mean(),
        "auc_lowest": rows["auc"].min(),
        "auc_highest": rows["auc"].max(),
        "cells": int(rows["auc"].notna().sum()),
        "cells_whose_interval_holds_chance": int(((rows["auc_low"] <= 0.5) & (rows["auc_high"] >= 0.5)).sum()),
    }


def contest(rows: pd.DataFrame) -> tuple[int, int, int]:
    """How many cells have a paired interval, and in how many the probe beats the residual probe or loses to it."""
    low, high = rows["delta_low"], rows["delta_high"]
    return int(low.notna().sum()), int((low > 0).sum()), int((high < 0).sum())


def _plain(number: float) -> float | int | None:
    if number != number:
        return None
    return number if isinstance(number, int) else round(float(number), 6)


def findings(table: pd.DataFrame) -> list[str]:
    """What the numbers say, in sentences."""
    rows = cells.headline(cells.without_baselines(table))
    kinds = [key for key in rows["key"].unique() if not cells.is_control(key)]
    told = [_finding(key, rows[rows["key"] == key]) for key in kinds]
    control = rows[rows["probe"] == "shuffled_labels"]
    if len(control):
        n = _control(control)
        told.append(
            f"Negative control: probes trained on shuffled labels have a mean AUC of {n['auc']:.3f} (cells: "
            f"{n['auc_lowest']:.2f} to {n['auc_highest']:.2f}); in {n['cells_whose_interval_holds_chance']} of "
            f"{n['cells']} cells the 95% interval over repeats contains 0.5."
        )
    return told


def _finding(key: str, rows: pd.DataFrame) -> str:
    numbers, away = _transfer(rows), rows[~rows["in_domain"]]
    name, spaces = cells.name(key), ", ".join(rows["space"].unique())
    told = f"{name[0].upper()}{name[1:]} ({spaces}): mean AUC {cells.number(numbers['auc_in_domain'])} in domain"
    if not numbers["cells_ood"]:
        return f"{told}."
    worst = away.sort_values("auc", kind="stable").iloc[0]
    told += (
        f", {cells.number(numbers['auc_ood'])} out of domain; worst {cells.number(worst['auc'])} "
        f"({worst['space']}, {worst['train']} to {worst['test']})."
    )
    compared, wins, losses = contest(away)
    if compared:
        told += (
            f" Of {compared} out-of-domain cells with an interval, it beats the residual stream probe of its layer in "
            f"{wins} and loses in {losses}."
        )
    return told


def page(table: pd.DataFrame, numbers: Numbers, svgs: Mapping[str, str], about: About) -> str:
    """The report as one HTML page.

    Args:
        table: the transfer table of every space.
        numbers: its `summary`.
        svgs: SVG text by the names that `figures.draw` gives; heatmaps are not needed, the page has them as tables.
        about: what was run.
    """
    environment = Environment(
        loader=PackageLoader("sae_transfer"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "probe": cells.name}
    images = {
        name: "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode() for name, svg in svgs.items()
    }
    shown = cells.without_baselines(table)
    return environment.get_template("report.html").render(
        about=about,
        findings=findings(table),
        datasets=_datasets(table),
        names=cells.datasets(table),
        heats=list(_heats(shown, "auc")),
        differences=list(_heats(shown, "delta_residual")),
        features=[_features(table, sae) for sae in table["sae"].unique() if sae],
        numbers={s: {k: v for k, v in kinds.items() if not cells.is_control(k)} for s, kinds in numbers.items()},
        controls={s: {k: v for k, v in kinds.items() if cells.is_control(k)} for s, kinds in numbers.items()},
        images=images,
        varied=figures.varied(table),
        scale=[(*figures.colours(step / 10, "auc"), f"{step / 10:.1f}") for step in range(11)],
    )


def _number(value: float | None, digits: int = 2) -> str:
    return cells.number(NO_NUMBER if value is None else value, digits)


def _datasets(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = cells.full(table)
    rows = rows[rows["in_domain"]].drop_duplicates("train")
    templates = table[table["condition"] == "test"].groupby("test")["test_variation"].unique()
    return [
        {
            "name": row["train"],
            "n_train": row["n_train"],
            "n_test": row["n_test"],
            "n_groups": row["n_groups"],
            "template": row["train_variation"],
            "variations": [t for t in templates[row["train"]] if t != row["train_variation"]],
        }
        for row in rows.to_dict("records")
    ]


def _heats(table: pd.DataFrame, column: str) -> Iterator[dict[str, Any]]:
    """Titled rows of heatmaps: for each SAE its probes beside its layer's residual probe, then the other baselines."""
    kinds = [(space, key) for space, key in cells.kinds(table) if not cells.is_control(key)]
    layers = table[table["sae"] == ""].drop_duplicates("layer").set_index("layer")["space"]
    against = [] if column != "auc" else ["residual"]
    for sae, layer in table[table["sae"] != ""].drop_duplicates("sae")[["sae", "layer"]].itertuples(index=False):
        shown = [(layers[layer], key) for key in against] + [kind for kind in kinds if kind[0] == sae]
        yield {"title": f"{sae}, layer {layer}", "grids": [_heat(table, *kind, column) for kind in shown]}
    shown_already = {"residual"} if (table["sae"] != "").any() or column != "auc" else set()
    others = [kind for kind in kinds if kind[0] in set(layers) and kind[1] not in shown_already]
    if others:
        yield {"title": "Residual stream baselines", "grids": [_heat(table, *kind, column) for kind in others]}


def _heat(table: pd.DataFrame, space: str, key: str, column: str) -> dict[str, Any]:
    grid = cells.grid(table, space, key, column)
    squares = [
        [_square(value, column, _hint(grid, i, j, column)) for j, value in enumerate(row)]
        for i, row in enumerate(grid.values)
    ]
    return {"grid": grid, "squares": squares, "file": f"{'heatmap' if column == 'auc' else 'difference'}_{space}_{key}"}


def _square(value: Value, column: str, hint: str) -> dict[str, Any]:
    background, ink = figures.colours(value.value, column)
    return {"value": value, "background": background, "ink": ink, "hint": hint}


def _hint(grid: Grid, i: int, j: int, column: str) -> str:
    """What pointing at a cell shows: the exact numbers, or why there are none."""
    value, a, b = grid.values[i][j], grid.trains[i], grid.tests[j]
    what = "AUC" if column == "auc" else "AUC minus residual stream probe"
    return f"{_exact(value, what)}; trained on {a.name} (n = {a.n}), tested on {b.name} (n = {b.n})"


def _exact(value: Value, what: str) -> str:
    if value.value != value.value:
        return f"{what} missing: {value.reason or 'not measured'}"
    if value.low != value.low:
        return f"{what} {value.value:.4f}, no interval: {value.reason or 'not measured'}"
    return f"{what} {value.value:.4f}, 95% interval {value.low:.4f} to {value.high:.4f}"


def _features(table: pd.DataFrame, sae: str) -> dict[str, Any]:
    """The 1-sparse probes of one SAE: for each A its best features, and what each is worth on every B."""
    rows = cells.full(cells.own_template(cells.keyed(table)))
    rows = rows[(rows["space"] == sae) & (rows["key"] == "sparse_1")]
    top = rows.drop_duplicates(["train", "rank"])
    owners = {str(feature): list(part["train"]) for feature, part in top.groupby("feature_ids")}
    by_place = {(row["train"], row["rank"], row["test"]): row for row in rows.to_dict("records")}
    tests = cells.datasets(table)
    listed = []
    for row in sorted(top.to_dict("records"), key=lambda row: (tests.index(row["train"]), row["rank"])):
        values = [cells.value(by_place.get((row["train"], row["rank"], test)), "auc") for test in tests]
        listed.append(
            {
                "train": row["train"],
                "rank": row["rank"],
                "feature": row["feature_ids"],
                "cv_auc": row["cv_auc"],
                "squares": [_square(value, "auc", _exact(value, "AUC")) for value in values],
                "also": [train for train in owners[str(row["feature_ids"])] if train != row["train"]],
            }
        )
    shared = sum(len(trains) > 1 for trains in owners.values())
    return {"sae": sae, "rows": listed, "distinct": len(owners), "shared": shared}
