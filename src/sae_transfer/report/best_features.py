"""Which features: the best of each training set, what they are worth everywhere, and the prompts behind them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.probing.activating import most_active
from sae_transfer.report.heatmap_tables import exact, square
from sae_transfer.results import cells

SHOWN_RANKS, EXAMPLES, LONGEST = 3, 3, 400  # characters


@dataclass(frozen=True)
class Example:
    """A prompt with its dataset, its label, and an activation or a probability of "answerable"."""

    dataset: str
    prompt: str
    label: int
    value: float


@dataclass(frozen=True)
class Behaviour:
    """How the features of one SAE behave.

    `density` is the share of A's training rows on which a feature fires, by (A, feature); `active` has, by feature, the
    prompts of all datasets on which it fires most; `wrong`, by (A, rank), test prompts that its 1-sparse probe gets
    most wrong, in domain and out of domain. `links` are the addresses of pages about
    features, empty where there is none.
    """

    density: Mapping[tuple[str, int], float] = field(default_factory=dict)
    active: Mapping[int, Sequence[Example]] = field(default_factory=dict)
    wrong: Mapping[tuple[str, int], Sequence[Example]] = field(default_factory=dict)
    links: Mapping[int, str] = field(default_factory=dict)


def shown(table: pd.DataFrame, sae: str) -> dict[str, list[int]]:
    """By training set, the features of the SAE's 1-sparse probes from the best to the worst."""
    top = _top(table, sae).sort_values("rank", kind="stable")
    return {str(train): [int(one) for one in part["feature_ids"]] for train, part in top.groupby("train", sort=False)}


def behaviour(
    features: Mapping[str, sparse.csr_array],
    prompts: Mapping[str, pd.DataFrame],
    scores: pd.DataFrame,
    best: Mapping[str, Sequence[int]],
    link: Callable[[int], str] = lambda feature: "",
) -> Behaviour:
    """What the report tells of an SAE's best features.

    Args:
        features: by dataset, [n, d_sae], rows as in its prompts.
        prompts: by dataset, its prompt table; the rows of its first variation are looked at.
        scores: the SAE's table of scores.
        best: as `shown` gives it.
        link: the address of a page about a feature, empty where there is none.
    """
    own = {name: (table["variation"] == table["variation"].iloc[0]).to_numpy() for name, table in prompts.items()}
    train = {name: own[name] & (table["split"] == "train").to_numpy() for name, table in prompts.items()}
    density = {
        (name, feature): float((features[name][train[name]][:, [feature]] > 0).sum() / max(train[name].sum(), 1))
        for name, chosen in best.items()
        for feature in chosen
    }
    texts = pd.concat(
        [table.loc[own[name], ["prompt", "label"]].assign(dataset=name) for name, table in prompts.items()]
    )
    leading = sorted({feature for chosen in best.values() for feature in chosen[:SHOWN_RANKS]})
    columns = sparse.vstack([features[name][own[name]][:, leading] for name in prompts], format="csc")
    active = {feature: _most_active(columns[:, [i]], texts) for i, feature in enumerate(leading)}
    links = {feature: link(feature) for chosen in best.values() for feature in chosen}
    return Behaviour(density, active, _wrong(scores, prompts), links)


def _most_active(column: Any, texts: pd.DataFrame) -> list[Example]:
    values: NDArray[Any] = np.asarray(column.toarray()).ravel()
    return [_example(texts.iloc[row], float(values[row])) for row in most_active(values, EXAMPLES)]


def _wrong(scores: pd.DataFrame, prompts: Mapping[str, pd.DataFrame]) -> dict[tuple[str, int], list[Example]]:
    largest = scores.groupby("train")["n_train"].transform("max")
    rows = scores[(scores["probe"] == "sparse_1") & (scores["condition"] == "test") & (scores["n_train"] == largest)]
    default = rows["test"].map({name: table["variation"].iloc[0] for name, table in prompts.items()})
    rows = rows[(rows["rank"] <= SHOWN_RANKS) & (rows["test_variation"] == default)]
    miss = (rows["probability"] - rows["label"]).abs()
    rows = rows.assign(miss=miss)[(rows["probability"] >= 0.5) != (rows["label"] == 1)]
    rows = rows.sort_values("miss", ascending=False, kind="stable")
    texts = {name: table.drop_duplicates("id").set_index("id")["prompt"] for name, table in prompts.items()}
    found: dict[tuple[str, int], list[Example]] = {}
    for train, rank in rows[["train", "rank"]].drop_duplicates().itertuples(index=False, name=None):
        part = rows[(rows["train"] == train) & (rows["rank"] == rank)]
        inside = part["test"] == train
        chosen = pd.concat([part[inside].head(EXAMPLES), part[~inside].drop_duplicates("test").head(EXAMPLES)])
        found[train, int(rank)] = [
            Example(row["test"], _short(texts[row["test"]][row["id"]]), int(row["label"]), float(row["probability"]))
            for row in chosen.to_dict("records")
        ]
    return found


def _example(row: Any, value: float) -> Example:
    return Example(str(row["dataset"]), _short(str(row["prompt"])), int(row["label"]), value)


def _short(prompt: str) -> str:
    """The prompt, without its middle where it is long: the question stands at its end."""
    if len(prompt) <= LONGEST:
        return prompt
    return f"{prompt[: LONGEST // 4]} […] {prompt[-3 * LONGEST // 4 :]}"


def _top(table: pd.DataFrame, sae: str) -> pd.DataFrame:
    rows = cells.full(cells.own_template(cells.keyed(table)))
    return rows[(rows["space"] == sae) & (rows["key"] == "sparse_1")].drop_duplicates(["train", "rank"])


def listed(table: pd.DataFrame, sae: str, facts: Behaviour) -> dict[str, Any]:
    """The 1-sparse probes of one SAE: for each A its best features, and what each is worth on every B."""
    rows = cells.full(cells.own_template(cells.keyed(table)))
    rows = rows[(rows["space"] == sae) & (rows["key"] == "sparse_1")]
    owners = {str(feature): list(part["train"]) for feature, part in _top(table, sae).groupby("feature_ids")}
    by_place = {(row["train"], row["rank"], row["test"]): row for row in rows.to_dict("records")}
    tests = cells.datasets(table)
    found = []
    for row in sorted(_top(table, sae).to_dict("records"), key=lambda row: (tests.index(row["train"]), row["rank"])):
        values = [cells.value(by_place.get((row["train"], row["rank"], test)), "auc") for test in tests]
        feature = int(row["feature_ids"])
        found.append(
            {
                "train": row["train"],
                "rank": row["rank"],
                "feature": feature,
                "link": facts.links.get(feature, ""),
                "cv_auc": row["cv_auc"],
                "density": facts.density.get((row["train"], feature), np.nan),
                "squares": [square(value, "auc", exact(value, "AUC")) for value in values],
                "also": [train for train in owners[str(feature)] if train != row["train"]],
                "active": facts.active.get(feature, ()) if row["rank"] <= SHOWN_RANKS else (),
                "wrong": facts.wrong.get((row["train"], row["rank"]), ()),
            }
        )
    shared = sum(len(trains) > 1 for trains in owners.values())
    return {"sae": sae, "rows": found, "distinct": len(owners), "shared": shared, "overlap": overlap(table, sae)}


def overlap(table: pd.DataFrame, sae: str) -> list[dict[str, Any]]:
    """Jaccard overlap of the features that each two training sets chose: the top K, and those of the N-sparse probe."""
    top = {train: set(chosen) for train, chosen in shown(table, sae).items()}
    rows = cells.headline(table)
    rows = rows[(rows["space"] == sae) & (rows["key"] == "sparse_n")].drop_duplicates("train")
    many = {row["train"]: set(map(int, str(row["feature_ids"]).split())) for row in rows.to_dict("records")}
    return [
        {"pair": f"{a} and {b}", "top": jaccard(top[a], top[b]), "many": jaccard(many.get(a), many.get(b))}
        for a, b in combinations(top, 2)
    ]


def jaccard(a: set[int] | None, b: set[int] | None) -> float:
    """Shared features over all features of two sets; NaN where there are none."""
    return len(a & b) / len(a | b) if a and b else np.nan
