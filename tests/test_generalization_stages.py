"""The stages oracle_gap, predictors and policies on a small study with planted features, files and all."""

import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

from domains import COMMON, DECODER, PLANTED, D, rows
from planted import QUICK, SHARED, SPURIOUS
from sae_transfer import activations, features, paths, store
from sae_transfer.features import Health
from sae_transfer.generalization import oracle, policies, predictors
from sae_transfer.probes import Training, ranked
from sae_transfer.records import UserError
from sae_transfer.stages.domains import own_rows
from sae_transfer.stages.fit import fit
from sae_transfer.stages.oracle_gap import oracle_gap
from sae_transfer.stages.policies import make_policies
from sae_transfer.stages.predictors import make_predictors

SAE, NAMES = "tiny_1", ("a", "b", "c")
PARAMS = {
    "seed": 0,
    "study": {"datasets": list(NAMES), "saes": [SAE], "saes_identity": "models/saes"},
    "model": {"name": "tiny", "layers": [1]},
    "saes": {SAE: {"layer": 1, "path": "models/saes/tiny_1"}},
    "probe": {"n_folds": 3, "C": [0.01, 1.0], "N": [2, 8], "top_k": 3, "repeats": 2, "matched_n_train": 60},
    "transfer": {"resamples": 400, "whole": False},
    "generalization": {"few_labels": [16], "draws": 2, "good_auc": 0.8},
}


def made(name, seed, n_train=120, n_test=80):
    """The artifacts of a dataset: prompts in two templates, residual streams and features."""
    rng = np.random.default_rng(seed)
    parts = [rows(rng, n, PLANTED[name]) for n in (n_train, n_test)]
    X = sparse.vstack([part[0] for part in parts] * 2, format="csr").astype(np.float32)
    n = n_train + n_test
    prompts = pd.DataFrame(
        {
            "id": [f"{name}:{i}" for i in range(n)] * 2,
            "group": [f"{i} {group}" for i, part in enumerate(parts) for group in part[2]] * 2,
            "split": np.tile(np.repeat(["train", "test"], [n_train, n_test]), 2),
            "variation": np.repeat(["default", "terse"], n),
            "label": np.tile(np.concatenate([part[1] for part in parts]), 2),
            "prompt": [f"{name} {i}" for i in range(2 * n)],
        }
    )
    store.write_table(paths.PROMPTS / f"{name}.parquet", prompts)
    stream = (X @ DECODER + 0.1 * rng.normal(size=(X.shape[0], DECODER.shape[1]))).astype(np.float32)
    activations.write(
        paths.ACTIVATIONS / name, {1: stream}, {"layers": [1]}, list(prompts["variation"] + "/" + prompts["id"])
    )
    features.write(paths.FEATURES / name, SAE, sparse.csr_array(X), Health(D, 1.0, 0.9, 0.0), "")
    features.write_reconstruction(paths.FEATURES / name, SAE, (X @ DECODER).astype(np.float32))
    train, _ = own_rows(prompts)
    training = Training(X[train], prompts["label"].to_numpy()[train], prompts["group"].to_numpy().astype(str)[train])
    ids = ranked(training, 0, QUICK).feature_ids
    return pd.DataFrame({"train": name, "resample": 0, "rank": np.arange(len(ids)) + 1, "feature": ids})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        paths.PROMPTS.mkdir(parents=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
        best = pd.concat([made(name, i) for i, name in enumerate(NAMES)], ignore_index=True)
        store.write_table(paths.BOOTSTRAP / SAE / "features.parquet", best)
        known = {"feature_ids": np.arange(D), "decoder": DECODER.astype(np.float32)}
        store.write_arrays(paths.DIRECTIONS / f"{SAE}.safetensors", known, {})
        for name in NAMES:
            fit("layer_1", name)
            fit(SAE, name)
        oracle_gap()
        make_predictors()
        make_policies()
    return folder


@pytest.fixture
def fresh(study, tmp_path, monkeypatch):
    shutil.copytree(study, tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


def test_the_tables_have_their_columns_and_name_the_sae(study):
    for name, columns in (
        ("oracle_gap", oracle.COLUMNS),
        ("predictors", predictors.COLUMNS),
        ("policies", policies.COLUMNS),
    ):
        found = pd.read_csv(study / f"results/{name}.csv")
        assert list(found.columns) == ["sae", *columns]
        assert set(found["sae"]) == {SAE}


def test_the_planted_truth_comes_through_the_files(study):
    gaps = pd.read_csv(study / "results/oracle_gap.csv", dtype={"feature_ids": str, "oracle_feature_ids": str})
    one = gaps[(gaps.train == "a") & (gaps.test == "b") & (gaps.probe == "sparse_1")]
    assert set(one["feature_ids"]) == {str(SPURIOUS)}
    assert set(one["oracle_feature_ids"]) == {str(SHARED)}
    chosen = pd.read_csv(study / "results/policies.csv", dtype={"feature_ids": str})
    worst = chosen[(chosen.train == "a") & (chosen.test == "b") & (chosen.policy == "worst_case")]
    assert worst.iloc[0]["feature_ids"] == str(SHARED)
    candidates = pd.read_parquet(study / f"artifacts/predictors/{SAE}.parquet")
    assert len(candidates[["train", "test"]].drop_duplicates()) == 6
    assert {"predicted", "auc", "agreement_sources", "reason"} <= set(candidates.columns)
    assert COMMON.keys() == {SHARED}


def test_only_the_template_of_the_dataset_is_used(study):
    prompts = pd.read_parquet(study / "artifacts/prompts/a.parquet")
    train, test = own_rows(prompts)
    assert (len(train), len(test)) == (120, 80)
    assert set(prompts["variation"].iloc[[*train, *test]]) == {"default"}


def test_two_runs_write_the_same_bytes(fresh):
    def hashes():
        files = [*(fresh / "results").glob("*.csv"), *(fresh / "artifacts/predictors").glob("*")]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    first = hashes()
    assert len(first) == 4
    oracle_gap()
    make_predictors()
    make_policies()
    assert hashes() == first


@pytest.mark.parametrize(
    ("missing", "stage"),
    [
        (f"artifacts/probes/{SAE}/a/probes.safetensors", oracle_gap),
        (f"artifacts/directions/{SAE}.safetensors", make_predictors),
        (f"artifacts/bootstrap/{SAE}/features.parquet", make_predictors),
        (f"artifacts/predictors/{SAE}.parquet", make_policies),
    ],
)
def test_a_missing_file_is_named_and_earlier_results_stay(fresh, missing, stage):
    before = {path: path.read_bytes() for path in (fresh / "results").glob("*.csv")}
    (fresh / missing).unlink()
    with pytest.raises(UserError, match=missing):
        stage()
    assert {path: path.read_bytes() for path in (fresh / "results").glob("*.csv")} == before


def test_one_dataset_gives_empty_tables(fresh):
    params = PARAMS | {"study": PARAMS["study"] | {"datasets": ["a"]}}
    (fresh / "params.yaml").write_text(yaml.safe_dump(params))
    oracle_gap()
    make_predictors()
    make_policies()
    for name in ("oracle_gap", "predictors", "policies"):
        found = pd.read_csv(fresh / f"results/{name}.csv")
        assert found.empty
        assert "sae" in found.columns
