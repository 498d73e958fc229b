"""What a feature is: the prompts on which it fires most, and those that its probe gets most wrong."""

from itertools import product

import numpy as np
import pandas as pd
from scipy import sparse

from sae_transfer.analyses import feature_examples
from sae_transfer.analyses.feature_examples import activating, most_wrong, shortened

DATASETS = ["alpha", "beta", "gamma"]


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


def told(found):
    return [(one["dataset"], one["prompt"], one["label"], one["value"]) for one in found]


def test_the_prompts_of_a_feature_are_those_of_all_datasets_on_which_it_fires_most():
    features = {name: features_of(name) for name in DATASETS}
    prompts = {name: prompts_of(name) for name in DATASETS}
    found = activating(features, prompts, {"alpha": [1, 2], "beta": [2, 3, 4]})
    assert list(found) == [1, 2, 3, 4]
    assert told(found[1]) == [
        ("gamma", "gamma prompt 3", 1, 9.0),
        ("beta", "beta prompt 3", 1, 8.0),
        ("alpha", "alpha prompt 3", 1, 7.0),
    ]
    assert found[2] == []  # it fires nowhere


def test_wrong_prompts_are_the_worst_in_domain_and_the_worst_of_every_other_dataset():
    found = most_wrong(scores(), {name: prompts_of(name) for name in DATASETS})
    assert set(found) == set(product(DATASETS, (1, 2, 3)))
    assert told(found["beta", 2]) == [
        ("beta", "beta prompt 9", 1, 0.03),
        ("beta", "beta prompt 7", 1, 0.2),
        ("beta", "beta prompt 8", 0, 0.6),
        ("alpha", "alpha prompt 9", 1, 0.03),
        ("gamma", "gamma prompt 9", 1, 0.03),
    ]


def test_a_long_prompt_keeps_its_beginning_and_its_question():
    cut = shortened("Begin. " + "x" * 1000 + " What is asked?")
    assert len(cut) < feature_examples.LONGEST + 10
    assert cut.startswith("Begin. ")
    assert " […] " in cut
    assert cut.endswith(" What is asked?")
    assert shortened("Short.") == "Short."


def test_the_table_has_the_best_features_of_every_training_set(project):
    found, study = project.study.table("examples"), project.study
    transfer = study.table("transfer")
    best = transfer[(transfer["probe"] == "sparse_1") & (transfer["n_train"] == 60)].drop_duplicates(["train", "rank"])
    expected = {(row["train"], row["rank"], int(row["feature_ids"])) for row in best.to_dict("records")}
    assert set(found[["train", "rank", "feature"]].itertuples(index=False, name=None)) <= expected
    first = found[(found["what"] == "activates") & (found["rank"] == 1)]
    assert set(first["train"]) == set(study.datasets)
    for row in first.to_dict("records"):
        prompts = study.prompts(row["dataset"])
        at = (prompts["prompt"] == row["prompt"]) & (prompts["variation"] == "default")
        column = study.matrix(study.saes[0], row["dataset"])[np.flatnonzero(at)][:, [row["feature"]]]
        assert np.isclose(column.toarray().max(), row["value"], rtol=1e-5)
