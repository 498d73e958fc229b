"""The best features of a study with the prompts behind them, as `Study.features` and `Study.activating` give them."""

import pandas as pd

from sae_transfer.core.errors import UserError
from sae_transfer.core.space import Space
from sae_transfer.data.splits import WORDS
from sae_transfer.pipeline.study import Study
from sae_transfer.probing.activating import most_active
from sae_transfer.results import cells


def best(study: Study, space: Space, dataset: str, n: int, examples: int) -> pd.DataFrame:
    """The n best features of a training set, one a row."""
    train = study.rows(space, dataset)
    table = cells.full(cells.own_template(study.table("transfer")))
    table = table[(table["space"] == space.name) & (table["train"] == dataset) & (table["probe"] == "sparse_1")]
    areas = table.pivot_table(index="rank", columns="test", values="auc")
    ranked = [probe for probe in study.full_probes(space, dataset) if probe.kind == "sparse_1"]
    rows = []
    for probe in sorted(ranked, key=lambda probe: probe.rank)[:n]:
        feature = int(probe.feature_text)
        fires = float((train.X[:, [feature]] > 0).sum() / len(train))
        about = {"rank": probe.rank, "feature": feature, "fires_for": WORDS[int(probe.weights[0] > 0)]}
        about |= {"cv_auc": probe.feature_cv_auc, "density": fires}
        auc = {f"auc_{test}": areas.loc[probe.rank, test] for test in study.datasets if test in areas}
        rows.append({**about, **auc, "prompts": list(activating(study, space, feature, examples)["prompt"])})
    return pd.DataFrame(rows)


def activating(study: Study, space: Space, feature: int, n: int) -> pd.DataFrame:
    """The n prompts of all datasets, under their own templates, on which a feature fires most."""
    parts = []
    for dataset in study.datasets:
        X, at = study.matrix(space, dataset), study.at(dataset, None)
        if not 0 <= feature < X.shape[1]:
            raise UserError(f"{space.name} has no feature {feature}; its {X.shape[1]} features are counted from 0")
        found = study.prompts(dataset).iloc[at][["split", "label", "prompt"]]
        parts.append(found.assign(dataset=dataset, activation=X[:, [feature]].toarray().ravel()[at]))
    rows = pd.concat(parts, ignore_index=True)
    most = rows.iloc[most_active(rows["activation"].to_numpy(), n)].reset_index(drop=True)
    return most[["dataset", "split", "label", "activation", "prompt"]]
