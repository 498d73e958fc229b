"""Which features: what each is worth on every dataset, the prompts behind it, and what two training sets share."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sae_transfer.report import best_features
from sae_transfer.report.best_features import Behaviour, Example, behaviour, jaccard, listed, overlap, shown
from tables import table

DATASETS = ["alpha", "beta", "gamma"]
SAE = "narrow_2"


@pytest.fixture(scope="module")
def study():
    return table(DATASETS, {SAE: 2}, variations={"beta": ["terse"]})


def prompts_of(dataset):
    """Six training and six test prompts, and the same in another template."""
    rows = pd.DataFrame({"id": [f"r{i}" for i in range(12)], "label": [0, 1] * 6})
    rows["split"] = ["train"] * 6 + ["test"] * 6
    rows["prompt"] = [f"{dataset} prompt {i}" for i in range(12)]
    other = rows.assign(prompt=rows["prompt"] + " again")
    return pd.concat([rows.assign(variation="default"), other.assign(variation="terse")], ignore_index=True)


def features_of(dataset):
    """Feature 1 fires on two of the training prompts, on prompt 3 most; in the other template far more."""
    dense = np.zeros((24, 64))
    dense[[0, 3, 7], 1] = 1.0, 7.0 + DATASETS.index(dataset), 2.0
    dense[12:, 1] = 99.0
    return sparse.csr_array(dense)


def scores():
    """1-sparse probes of ranks 1 to 4 that are wrong on test prompts r9 (very), r7 and r8; and worse at 3 rows."""
    rows = prompts_of("any")
    rows = rows[rows["split"] == "test"]
    rows = rows.rename(columns={"variation": "test_variation"})
    right = rows["label"].astype(float)
    found = []
    for train, test, rank in product(DATASETS, DATASETS, (1, 2, 3, 4)):
        said = right.mask(rows["id"] == "r9", 0.03).mask(rows["id"] == "r7", 0.2).mask(rows["id"] == "r8", 0.6)
        about = {"train": train, "test": test, "rank": rank, "n_train": 240, "probe": "sparse_1", "condition": "test"}
        found.append(rows.assign(probability=said, **about))
        found.append(rows.assign(probability=1 - right, **(about | {"n_train": 3})))
    found.append(found[0].assign(probe="sparse_n", probability=1 - right))
    found.append(found[0].assign(condition="whole", probability=1 - right))
    return pd.concat(found, ignore_index=True)


@pytest.fixture(scope="module")
def facts():
    best = {"alpha": [1, 2], "beta": [2, 3, 4, 1]}
    features = {name: features_of(name) for name in DATASETS}
    prompts = {name: prompts_of(name) for name in DATASETS}
    return behaviour(features, prompts, scores(), best, lambda feature: f"page/{feature}")


def test_density_is_the_share_of_the_training_rows_of_the_own_template(facts):
    assert facts.density == {
        **{("alpha", 1): 2 / 6, ("alpha", 2): 0, ("beta", 1): 2 / 6},
        **{("beta", feature): 0 for feature in (2, 3, 4)},
    }


def test_the_prompts_of_a_feature_are_those_of_all_datasets_on_which_it_fires_most(facts):
    assert list(facts.active) == [1, 2, 3, 4]
    assert facts.active[1] == [
        Example("gamma", "gamma prompt 3", 1, 9.0),
        Example("beta", "beta prompt 3", 1, 8.0),
        Example("alpha", "alpha prompt 3", 1, 7.0),
    ]
    assert facts.active[2] == []  # it fires nowhere


def test_wrong_prompts_are_the_worst_in_domain_and_the_worst_of_every_other_dataset(facts):
    assert set(facts.wrong) == set(product(DATASETS, (1, 2, 3)))
    assert facts.wrong["beta", 2] == [
        Example("beta", "beta prompt 9", 1, 0.03),
        Example("beta", "beta prompt 7", 1, 0.2),
        Example("beta", "beta prompt 8", 0, 0.6),
        Example("alpha", "alpha prompt 9", 1, 0.03),
        Example("gamma", "gamma prompt 9", 1, 0.03),
    ]


def test_links_are_of_every_feature_that_is_listed(facts):
    assert facts.links == {feature: f"page/{feature}" for feature in (1, 2, 3, 4)}


def test_a_long_prompt_keeps_its_beginning_and_its_question():
    text = "Begin. " + "x" * 1000 + " What is asked?"
    prompts = prompts_of("alpha").assign(prompt=text)
    found = behaviour({"alpha": features_of("alpha")}, {"alpha": prompts}, scores().iloc[:0], {"alpha": [1]})
    cut = found.active[1][0].prompt
    assert len(cut) < best_features.LONGEST + 10
    assert cut.startswith("Begin. ")
    assert " […] " in cut
    assert cut.endswith(" What is asked?")


def test_a_feature_is_listed_with_its_auc_on_every_dataset_and_who_else_chose_it(study):
    same = study.copy()
    own = (study["probe"] == "sparse_1") & (study["rank"] == 1)
    same.loc[own & study["train"].isin(["alpha", "beta"]), "feature_ids"] = "7"
    found = listed(same, SAE, Behaviour(density={("alpha", 7): 0.25}, links={7: "page/7"}))
    assert [(row["train"], row["rank"]) for row in found["rows"]] == list(product(DATASETS, (1, 2)))
    first = found["rows"][0]
    assert (first["feature"], first["link"], first["density"], first["also"]) == (7, "page/7", 0.25, ["beta"])
    assert (found["distinct"], found["shared"]) == (5, 1)
    for row in found["rows"]:
        cells = same[(same["probe"] == "sparse_1") & (same["train"] == row["train"]) & (same["rank"] == row["rank"])]
        aucs = cells[cells["test_variation"] == "default"].set_index("test")["auc"]
        assert [square["value"].value for square in row["squares"]] == list(aucs[DATASETS])
        assert row["cv_auc"] == cells["cv_auc"].iloc[0]


def test_shown_has_the_features_from_the_best_to_the_worst(study):
    found = shown(study.sample(frac=1, random_state=0), SAE)
    assert set(found) == set(DATASETS)
    for train, features in found.items():
        rows = study[(study["probe"] == "sparse_1") & (study["train"] == train) & (study["test"] == "alpha")]
        by_rank = rows.drop_duplicates("rank").set_index("rank")["feature_ids"]
        assert features == [int(by_rank[1]), int(by_rank[2])]


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
