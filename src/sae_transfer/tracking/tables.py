"""The tables of features that runs carry as artifacts. Pure functions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sae_transfer.core.arrays import Ints
from sae_transfer.probing import kinds
from sae_transfer.probing.probe import Probe
from sae_transfer.results import cells

COLUMNS = ("feature", "fires most on", "then on", "and on", "density", "rank", "cv_auc")
OF_PROBES = ("scale", "bias")
EXAMPLES, LONGEST = COLUMNS[1:4], 160  # prompts of a feature; characters of each


def feature_tables(
    table: pd.DataFrame,
    probes: Callable[[str, str], list[Probe]],
    fires: Callable[[str, str], Ints],
    prompts: Callable[[str, Sequence[int]], Mapping[int, Sequence[str]]],
    link: Callable[[str, int], str],
) -> dict[tuple[str, str], dict[str, pd.DataFrame]]:
    """For each (space, A) and kind of probe that reads features of an SAE: what those features are.

    Columns: `feature` (its id); the three prompts on which it fires most; `density`, the share of A's training rows on
    which it fires; `rank` on A; `cv_auc`, the cross-validated AUC on A of the feature alone; `weight` in the N-sparse
    probe (there alone); `auc on <B>` of the feature alone; `scale` and `bias` of its 1-sparse probe; `link`, where
    Neuronpedia has a page.

    Args:
        table: the transfer table.
        probes: the probes saved for a space and an A.
        fires: [d_sae] number of A's training rows on which each feature fires, for an SAE and an A.
        prompts: by feature, the prompts on which it fires most, for an SAE and some of its features.
        link: the web page of a feature of an SAE, or nothing.
    """
    alone = _alone(table)
    rows = cells.headline(table[table["probe"].map(kinds.role) == "probe"])
    rows = rows[(rows["sae"] != "") & (rows["feature_ids"] != "")].drop_duplicates(["space", "train", "key"])
    found: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    shown_of: dict[str, set[int]] = {}
    for (space, _), of in alone.items():
        shown_of.setdefault(space, set()).update(of)
    for row in rows.to_dict("records"):
        shown_of.setdefault(row["space"], set()).update(_ids(row["feature_ids"].split()))
    texts = {space: prompts(space, sorted(ids)) for space, ids in shown_of.items()}
    for row in rows.to_dict("records"):
        space, train, key = row["space"], row["train"], row["key"]
        of = alone.get((space, train), {})
        listed = sorted(of, key=lambda f: of[f]["rank"]) if key == "sparse_1" else _ids(row["feature_ids"].split())
        saved = [probe for probe in probes(space, train) if probe.n_train == row["n_train"]]
        own = {_ids(probe.feature_ids)[0]: probe for probe in saved if probe.kind == "sparse_1"}
        ranked = [probe for probe in saved if probe.kind == row["probe"] and _ids(probe.feature_ids) == listed]
        weights = dict(zip(listed, ranked[0].weights, strict=True)) if ranked and key != "sparse_1" else {}
        density = fires(space, train)[listed] / row["n_train"]
        told = [
            {"feature": feature, "density": share, "link": link(space, feature)}
            | dict(zip(EXAMPLES, texts[space].get(feature, ()), strict=False))
            | of.get(feature, {})
            | (_of_probe(own[feature]) if feature in own else {})
            | ({"weight": weights[feature]} if weights else {})
            for feature, share in zip(listed, density, strict=True)
        ]
        areas = dict.fromkeys(name for each in told for name in each if name.startswith("auc on "))
        columns = [*COLUMNS, *(["weight"] if weights else []), *areas, *OF_PROBES, "link"]
        shown = pd.DataFrame(told, columns=columns).astype({"rank": "Int64"}).round(6)
        found.setdefault((space, train), {})[key] = shown if shown["link"].any() else shown.drop(columns="link")
    return found


def _alone(table: pd.DataFrame) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """By (space, A) and feature: `rank`, and `auc on <B>` for every B, of its 1-sparse probe."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in cells.full(cells.own_template(table[table["probe"] == "sparse_1"])).to_dict("records"):
        of = found.setdefault((row["space"], row["train"]), {}).setdefault(int(row["feature_ids"]), {})
        of |= {"rank": row["rank"], f"auc on {row['test']}": row["auc"]}
    return found


def most_active(X: sparse.csr_array, texts: Sequence[str], features: Sequence[int]) -> dict[int, list[str]]:
    """By feature, the texts of the rows on which it fires most; fewer where it fires on fewer.

    Args:
        X: [n, d_sae] features of an SAE.
        texts: [n].
        features: ids, in any order.
    """
    columns = sparse.csc_array(X[:, list(features)])
    found = {}
    for i, feature in enumerate(features):
        part = slice(columns.indptr[i], columns.indptr[i + 1])
        order = np.argsort(-columns.data[part], kind="stable")[: len(EXAMPLES)]
        found[feature] = [texts[row] for row in columns.indices[part][order]]
    return found


def as_text(dataset: str, label: int, question: str, prompt: str) -> str:
    """A prompt in a cell of a table, of which a page shows the first words: its question, and the end of all of it."""
    flat = " ".join(prompt.split())
    end = flat if len(flat) <= LONGEST else f"[…] {flat[-LONGEST:]}"
    about = f"({dataset}, {'answerable' if label else 'unanswerable'})"
    return f"{' '.join(question.split())[:LONGEST]} {about} {end}".lstrip()


def _of_probe(probe: Probe) -> dict[str, float]:
    return {"cv_auc": probe.feature_cv_auc, "scale": float(probe.weights[0]), "bias": probe.bias}


def _ids(features: Iterable[Any] | None) -> list[int]:
    return [] if features is None else [int(feature) for feature in features]
