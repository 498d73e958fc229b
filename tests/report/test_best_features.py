"""Which features: what each is worth and how often it fires on every dataset, and what two training sets share."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from sae_transfer.analyses.feature_examples import TABLE
from sae_transfer.report.best_features import jaccard, listed, overlap
from tables import table

DATASETS = ["alpha", "beta", "gamma"]
SAE = "narrow_2"


@pytest.fixture(scope="module")
def study():
    return table(DATASETS, {SAE: 2}, variations={"beta": ["terse"]})


def example(**about):
    return {"sae": SAE, "train": "alpha", "rank": 1, "feature": 7, "dataset": "beta", "label": 1, "value": 2.0} | about


def test_a_feature_is_listed_with_its_auc_on_every_dataset_and_who_else_chose_it(study):
    same = study.copy()
    own = (study["probe"] == "sparse_1") & (study["rank"] == 1)
    same.loc[own & study["train"].isin(["alpha", "beta"]), "feature_ids"] = "7"
    same.loc[own & (study["train"] == "alpha"), "density"] = 0.25
    prompts = TABLE.frame([example(what="activates", prompt="Who?"), example(what="wrong", prompt="Why?", rank=2)])
    other = TABLE.frame([example(what="activates", prompt="of another SAE", sae="wide_2")])
    found = listed(same, pd.concat([prompts, other]), SAE, lambda sae, feature: f"{sae}/{feature}")
    assert [(row["train"], row["rank"]) for row in found["rows"]] == list(product(DATASETS, (1, 2)))
    first = found["rows"][0]
    assert (first["feature"], first["link"], first["also"]) == (7, "narrow_2/7", ["beta"])
    assert first["density"] == [0.25] * 3
    assert [one["prompt"] for one in first["active"]] == ["Who?"]
    assert first["wrong"] == ()
    assert [one["prompt"] for one in found["rows"][1]["wrong"]] == ["Why?"]
    assert (found["distinct"], found["shared"]) == (5, 1)
    for row in found["rows"]:
        cells = same[(same["probe"] == "sparse_1") & (same["train"] == row["train"]) & (same["rank"] == row["rank"])]
        aucs = cells[cells["test_variation"] == "default"].set_index("test")["auc"]
        assert [square["value"].value for square in row["squares"]] == list(aucs[DATASETS])
        assert row["cv_auc"] == cells["cv_auc"].iloc[0]


def test_overlap_is_the_share_of_the_features_that_two_training_sets_chose_both(study):
    chosen = study.copy()
    ids = {("alpha", 1): "1", ("alpha", 2): "2", ("beta", 1): "2", ("beta", 2): "3", ("gamma", 1): "8"}
    for (train, rank), feature in ids.items():
        at = (chosen["probe"] == "sparse_1") & (chosen["train"] == train) & (chosen["rank"] == rank)
        chosen.loc[at, "feature_ids"] = feature
    many = (chosen["probe"] == "sparse_n") & chosen["selected"]
    for train, features in {"alpha": "1 2 3", "beta": "3 4", "gamma": "5"}.items():
        chosen.loc[many & (chosen["train"] == train), "feature_ids"] = features
    pairs = {row["pair"]: (row["top"], row["many"]) for row in overlap(chosen, SAE)}
    assert list(pairs) == ["alpha and beta", "alpha and gamma", "beta and gamma"]
    assert pairs["alpha and beta"] == (1 / 3, 1 / 4)
    assert pairs["beta and gamma"] == (0, 0)


def test_jaccard_of_nothing_is_missing():
    assert jaccard({1, 2}, {2, 3}) == 1 / 3
    assert np.isnan(jaccard(set(), {1}))
    assert np.isnan(jaccard(None, {1}))
