"""What a feature is: the prompts on which it fires most, and those that its 1-sparse probe gets most wrong."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer.analyses.analysis import Analysis, by_sae
from sae_transfer.probing.activating import most_active
from sae_transfer.probing.probe import Probe
from sae_transfer.results.schema import Column, Table, integers, texts
from sae_transfer.results.transfer_table import TRANSFER

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

TABLE = Table(
    "examples",
    "one row a prompt of a feature: the best features of each SAE and A, with prompts under the dataset's own template",
    (
        *TRANSFER.pick("sae", "train"),
        *integers(rank="the feature's place in A's ranking, from 1", feature="the feature's id"),
        *texts(
            what="activates: it fires most on this prompt; wrong: its 1-sparse probe is most wrong on this test "
            "prompt, of A first and then of other datasets",
            dataset="the dataset of the prompt",
        ),
        *integers(label="1 answerable, 0 unanswerable"),
        Column("value", "number", "the activation; or, where the probe is wrong, its probability of answerable"),
        *texts(prompt="the prompt, without its middle where it is long"),
    ),
)
SHOWN_RANKS, EXAMPLES, LONGEST = 3, 3, 400  # characters


def compute(study: "Study", part: str) -> pd.DataFrame:
    """The rows of one SAE."""
    space = study.space(part)
    best = {
        name: [int(probe.feature_text) for probe in study.full_probes(space, name) if _shown(probe)]
        for name in study.datasets
    }
    prompts = {name: study.prompts(name) for name in study.datasets}
    features = {name: study.matrix(space, name) for name in study.datasets}
    active, wrong = activating(features, prompts, best), most_wrong(study.scores(space), prompts)
    rows = [
        {"sae": part, "train": train, "rank": rank, "feature": feature} | row
        for train, chosen in best.items()
        for rank, feature in enumerate(chosen, 1)
        for row in [*active[feature], *wrong.get((train, rank), ())]
    ]
    return TABLE.frame(rows)


def _shown(probe: Probe) -> bool:
    return probe.kind == "sparse_1" and probe.rank <= SHOWN_RANKS


def activating(
    features: Mapping[str, sparse.csr_array], prompts: Mapping[str, pd.DataFrame], best: Mapping[str, Sequence[int]]
) -> dict[int, list[dict[str, Any]]]:
    """By feature, the prompts of all datasets on which it fires most.

    Args:
        features: by dataset, [n, d_sae], rows as in its prompts.
        prompts: by dataset, its prompt table; the rows of its first variation are looked at.
        best: by training set, features.
    """
    own = {name: (table["variation"] == table["variation"].iloc[0]).to_numpy() for name, table in prompts.items()}
    texts = pd.concat(
        [table.loc[own[name], ["prompt", "label"]].assign(dataset=name) for name, table in prompts.items()]
    )
    leading = sorted({feature for chosen in best.values() for feature in chosen})
    columns = sparse.vstack([features[name][own[name]][:, leading] for name in prompts], format="csc")
    return {feature: list(_most(columns[:, [i]], texts)) for i, feature in enumerate(leading)}


def _most(column: Any, texts: pd.DataFrame) -> Iterator[dict[str, Any]]:
    values: NDArray[Any] = np.asarray(column.toarray()).ravel()
    for row in most_active(values, EXAMPLES):
        found = texts.iloc[row]
        told = {"dataset": found["dataset"], "label": int(found["label"]), "value": float(values[row])}
        yield {"what": "activates", "prompt": shortened(str(found["prompt"]))} | told


def most_wrong(
    scores: pd.DataFrame, prompts: Mapping[str, pd.DataFrame]
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """By (A, rank), the test prompts that the 1-sparse probe gets most wrong: of A, and one of each other dataset."""
    largest = scores.groupby("train")["n_train"].transform("max")
    rows = scores[(scores["probe"] == "sparse_1") & (scores["condition"] == "test") & (scores["n_train"] == largest)]
    own = rows["test"].map({name: table["variation"].iloc[0] for name, table in prompts.items()})
    rows = rows[(rows["rank"] <= SHOWN_RANKS) & (rows["test_variation"] == own)]
    rows = rows.assign(miss=(rows["probability"] - rows["label"]).abs())
    rows = rows[(rows["probability"] >= 0.5) != (rows["label"] == 1)]
    rows = rows.sort_values("miss", ascending=False, kind="stable")
    texts = {name: table.drop_duplicates("id").set_index("id")["prompt"] for name, table in prompts.items()}
    found = {}
    for train, rank in rows[["train", "rank"]].drop_duplicates().itertuples(index=False):
        part = rows[(rows["train"] == train) & (rows["rank"] == rank)]
        inside = part["test"] == train
        chosen = pd.concat([part[inside].head(EXAMPLES), part[~inside].drop_duplicates("test").head(EXAMPLES)])
        found[train, int(rank)] = [
            {
                "what": "wrong",
                "dataset": row["test"],
                "label": int(row["label"]),
                "value": float(row["probability"]),
                "prompt": shortened(texts[row["test"]][row["id"]]),
            }
            for row in chosen.to_dict("records")
        ]
    return found


def shortened(prompt: str) -> str:
    """The prompt, without its middle where it is long: the question stands at its end."""
    if len(prompt) <= LONGEST:
        return prompt
    return f"{prompt[: LONGEST // 4]} […] {prompt[-3 * LONGEST // 4 :]}"


ANALYSIS = Analysis(TABLE, compute, by_sae, params=())
