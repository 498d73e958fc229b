"""The stages of the analyses on a small made-up study: what they write, and what a strange study does to them."""

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml

from planted import balanced
from planted import features as sae_features
from sae_transfer import (
    activations,
    alignment,
    calibration,
    config,
    features,
    paths,
    probe_files,
    probes,
    sae_comparison,
    splitting,
    store,
    variations,
)
from sae_transfer.features import Directions, Health
from sae_transfer.probes import ProbeParams
from sae_transfer.records import UserError
from sae_transfer.stages import inputs
from sae_transfer.stages.calibration import calibrate
from sae_transfer.stages.saes import compare
from sae_transfer.stages.similarity import similarity
from sae_transfer.stages.variations import vary

D, WIDTH, N = 12, 40, 120
PROBE = {"n_folds": 3, "C": [0.1, 1.0], "N": [2, 4], "top_k": 3, "repeats": 3}
STAGES = (similarity, vary, calibrate, compare)
TABLES = {
    "similarity": alignment.COLUMNS,
    "variations": variations.COLUMNS,
    "calibration": calibration.COLUMNS,
    "saes": sae_comparison.COLUMNS,
    "splitting": splitting.SPLITTING,
    "matches": splitting.MATCHES,
}


def params(saes):
    return {
        "seed": 0,
        "study": {"datasets": ["a", "b"], "saes": saes, "saes_identity": "x"},
        "model": {"name": "tiny", "layers": [1]},
        "saes": {name: {"layer": 1, "path": f"saes/{name}"} for name in saes},
        "datasets": {},
        "probe": PROBE,
        "transfer": {"resamples": 50},
    }


def prompts(labels, templates):
    rows = pd.DataFrame({"id": [f"i{i}" for i in range(N)], "group": [f"g{i // 2}" for i in range(N)], "label": labels})
    rows["split"] = np.where(np.arange(N) < 80, "train", "test")
    return pd.concat([rows.assign(variation=template) for template in templates], ignore_index=True)


def write_dataset(name, seed, templates, saes, constant):
    rng = np.random.default_rng(seed)
    table = prompts(np.r_[balanced(rng, 80), balanced(rng, 40)], templates)
    labels = table["label"].to_numpy()
    stream = (rng.normal(size=(len(table), D)) + np.outer(labels, np.eye(D)[0]) * 2).astype(np.float32)
    store.write_table(paths.PROMPTS / f"{name}.parquet", table)
    ids = list(table["variation"] + "/" + table["id"])
    activations.write(paths.ACTIVATIONS / name, {1: 0 * stream + 1 if constant else stream}, {"layers": [1]}, ids)
    for number, sae in enumerate(saes):
        encoded = sae_features(rng, labels, WIDTH, 0.3, {3 + number: (0.1, 0.8)})
        features.write(paths.FEATURES / name, sae, encoded, Health(WIDTH, 10.0, 0.9, 0.0), "x")


def study(folder, monkeypatch, *, saes=("s", "t"), templates=("own", "terse"), identical=False, constant=False):
    monkeypatch.chdir(folder)
    paths.PROMPTS.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(params(list(saes))))
    write_dataset("a", 0, templates, saes, constant)
    write_dataset("b", 0 if identical else 1, templates, saes, constant)
    rng = np.random.default_rng(2)
    for sae in saes:
        ids, arrays = np.arange(WIDTH), rng.normal(size=(2, WIDTH, D)).astype(np.float32)
        features.write_directions(paths.DIRECTIONS / f"{sae}.safetensors", Directions(ids, *arrays, "topk"))
    for space in ("layer_1", *saes):
        for dataset in ("a", "b"):
            method = probes.layer_probes if space == "layer_1" else probes.sae_probes
            fitted = method(inputs.training(space, dataset), 0, config.parse(ProbeParams, PROBE, "probe"))
            probe_files.write(paths.PROBES / space / dataset, fitted)
    scale = 0.0 if constant else 1.0
    resampled = {name: scale * (np.eye(D)[0] + 0.1 * rng.normal(size=(5, D))) for name in "ab"}
    store.write_arrays(paths.BOOTSTRAP / "layer_1" / "probes.safetensors", resampled, {})


def made():
    return {name: pd.read_csv(paths.RESULTS / f"{name}.csv", keep_default_na=False, na_values=[""]) for name in TABLES}


def check(tables):
    """Every table has its columns, and every missing AUC, accuracy or similarity a reason."""
    for name, table in tables.items():
        assert list(table.columns) == list(TABLES[name])
        for number in {"auc", "accuracy", "similarity"} & set(table.columns):
            assert (table["reason"].notna() | table[number].notna()).all()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usual")
    with pytest.MonkeyPatch.context() as patch:
        study(folder, patch)
        for stage in STAGES:
            stage()
    return folder


def test_every_table_is_written_and_complete(usual, monkeypatch):
    monkeypatch.chdir(usual)
    tables = made()
    check(tables)
    assert set(tables["variations"]["train_variation"]) == {"own", "terse", "pooled"}
    assert set(tables["calibration"]["space"]) == {"layer_1", "s", "t"}
    assert len(tables["calibration"]) == (2 + 2 + 2) * 4 * 3
    assert set(zip(tables["splitting"]["sae"], tables["splitting"]["other"], strict=True)) == {("s", "t"), ("t", "s")}
    assert set(tables["saes"]["objective"]) == {"topk"}


def test_a_second_run_writes_the_same_bytes(usual, tmp_path, monkeypatch):
    shutil.copytree(usual, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    shutil.rmtree(paths.RESULTS)
    for stage in STAGES:
        stage()
    for name in TABLES:
        assert (paths.RESULTS / f"{name}.csv").read_bytes() == (usual / paths.RESULTS / f"{name}.csv").read_bytes()


def test_training_bootstraps_give_similarities_their_intervals(usual, tmp_path, monkeypatch):
    monkeypatch.chdir(usual)
    table = pd.read_csv(paths.RESULTS / "similarity.csv")
    to_probes = table[table["other"] == "residual"]
    assert (to_probes["low"] <= to_probes["high"]).all()
    assert table[table["direction"] == "sparse_n"]["over_top_low"].notna().any()
    assert (table["direction"] == "bootstrap").sum() == 4
    shutil.copytree(usual, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    shutil.rmtree(paths.BOOTSTRAP)
    with pytest.raises(UserError, match=r"probes\.safetensors: not found; `dvc repro` makes it"):
        similarity()


@pytest.mark.parametrize(
    "strange",
    [{"saes": ("s",)}, {"templates": ("own",)}, {"identical": True}, {"constant": True}, {"saes": ()}],
    ids=["one SAE", "no variations", "one dataset under two names", "constant activations", "no SAE"],
)
def test_a_strange_study_gives_reasons_or_empty_tables(tmp_path, monkeypatch, capsys, strange):
    study(tmp_path, monkeypatch, **strange)
    for stage in STAGES:
        stage()
    tables = made()
    check(tables)
    said = capsys.readouterr().out
    if "saes" in strange:
        assert len(tables["splitting"]) == len(tables["matches"]) == 0
        assert "Feature splitting needs two SAEs on one layer." in said
    if "templates" in strange:
        assert len(tables["variations"]) == 0
        assert "No dataset has prompt variations." in said
    if "identical" in strange:
        away = tables["calibration"].query("not in_domain and labels == 0")
        np.testing.assert_allclose(away["auc_lost"], 0, atol=1e-12)
        assert "lost ranking" not in set(tables["calibration"]["verdict"])
        twins = tables["similarity"].query("direction == 'residual' and measure == 'cosine'")
        np.testing.assert_allclose(twins["similarity"], 1)
    if "constant" in strange:
        residual = tables["similarity"].query("direction == 'residual'")
        assert residual["similarity"].isna().all()
        assert residual["reason"].str.startswith("similarity: ").all()
        assert (tables["calibration"].query("space == 'layer_1'")["auc"] == 0.5).all()
