"""Which features: the best of each training set, what they are worth and how often they fire, and their prompts."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sae_transfer.report.heatmap_tables import exact, square
from sae_transfer.results import cells

Link = Callable[[str, int], str]  # (SAE, feature) -> the address of a page about it, or nothing


def listed(transfer: pd.DataFrame, examples: pd.DataFrame, sae: str, link: Link) -> dict[str, Any]:
    """The 1-sparse probes of one SAE: for each A its best features, and what each is worth on every B.

    Args:
        transfer: the transfer table.
        examples: columns of `analyses.feature_examples.TABLE`.
        sae: a name.
        link: where there is a page about a feature.
    """
    rows = cells.full(cells.own_template(cells.keyed(transfer)))
    rows = rows[(rows["space"] == sae) & (rows["key"] == "sparse_1")]
    top = rows.drop_duplicates(["train", "rank"])
    owners = {str(feature): list(part["train"]) for feature, part in top.groupby("feature_ids")}
    by_place = {(row["train"], row["rank"], row["test"]): row for row in rows.to_dict("records")}
    prompts = prompts_of(examples[examples["sae"] == sae])
    tests = cells.datasets(transfer)
    found = []
    for row in sorted(top.to_dict("records"), key=lambda row: (tests.index(row["train"]), row["rank"])):
        place, feature = (row["train"], row["rank"]), int(row["feature_ids"])
        known = {test: by_place.get((*place, test)) for test in tests}
        values = [cells.value(known[test], "auc") for test in tests]
        found.append(
            {
                "train": row["train"],
                "rank": row["rank"],
                "feature": feature,
                "link": link(sae, feature),
                "cv_auc": row["cv_auc"],
                "density": [cell["density"] if cell else np.nan for cell in known.values()],
                "squares": [square(value, "auc", exact(value, "AUC")) for value in values],
                "also": [train for train in owners[str(feature)] if train != row["train"]],
                "active": prompts.get((*place, "activates"), ()),
                "wrong": prompts.get((*place, "wrong"), ()),
            }
        )
    shared = sum(len(trains) > 1 for trains in owners.values())
    return {"sae": sae, "rows": found, "distinct": len(owners), "shared": shared, "overlap": overlap(transfer, sae)}


def prompts_of(examples: pd.DataFrame) -> Mapping[Any, Sequence[Mapping[Any, Any]]]:
    """By (A, rank, what), the prompts in order."""
    parts = examples.groupby(["train", "rank", "what"], sort=False)
    return {place: part.to_dict("records") for place, part in parts}


def overlap(transfer: pd.DataFrame, sae: str) -> list[dict[str, Any]]:
    """Jaccard overlap of the features that each two training sets chose: the top K, and those of the N-sparse probe."""
    rows = cells.full(cells.own_template(cells.keyed(transfer)))
    rows = rows[(rows["space"] == sae) & rows["key"].isin(["sparse_1", "sparse_n"])]
    top, many = (
        {train: {int(one) for ids in part["feature_ids"] for one in ids.split()} for train, part in of.groupby("train")}
        for of in (rows[rows["key"] == "sparse_1"], rows[(rows["key"] == "sparse_n") & rows["selected"]])
    )
    return [
        {"pair": f"{a} and {b}", "top": jaccard(top[a], top[b]), "many": jaccard(many.get(a), many.get(b))}
        for a, b in combinations((name for name in cells.datasets(transfer) if name in top), 2)
    ]


def jaccard(a: set[int] | None, b: set[int] | None) -> float:
    """Shared features over all features of two sets; NaN where there are none."""
    return len(a & b) / len(a | b) if a and b else np.nan
