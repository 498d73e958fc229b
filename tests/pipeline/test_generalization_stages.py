"""Training samples, oracle gap, candidates, predictors and policies of a small study's files, with planted features."""

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

from domains import COMMON, DECODER, PLANTED, D, rows
from planted import SHARED, SPURIOUS
from sae_transfer.analyses import candidate_table, oracle_gap, policies, predictors, stability
from sae_transfer.analyses.domains import domains_of, same_data
from sae_transfer.artifacts import activations, features, resamples
from sae_transfer.artifacts.features import Decoder, Directions, Health
from sae_transfer.core import files, paths
from sae_transfer.core.errors import UserError
from sae_transfer.pipeline.fit import fit_item
from sae_transfer.pipeline.study import Study, prompt_ids

SAE, LAYER, NAMES = "tiny_1", "layer_1", ("a", "b", "c")
TWO_WAYS = (("bootstrap", 4), ("half_sample", 3))
ANALYSES = [module.ANALYSIS for module in (oracle_gap, candidate_table, predictors, policies)]
PARAMS = {
    "seed": 0,
    "study": {"datasets": list(NAMES), "saes": [SAE]},
    "model": {"name": "tiny", "layers": [1]},
    "saes": {SAE: {"layer": 1, "path": "models/saes/tiny_1"}},
    "datasets": {name: {"loader": "table", "path": "x.jsonl", "n_train": 120, "n_test": 80} for name in NAMES},
    "probe": {"n_folds": 3, "C_grid": [0.01, 1.0], "N": [2, 8], "top_k": 3, "repeats": 2, "matched_n_train": 60},
    "transfer": {"resamples": 400, "whole": False},
    "generalization": {"few_labels": [16], "draws": 2, "good_auc": 0.8},
    "bootstrap": {"resamples": 4, "seeds": 3},
    **{name: {} for name in ("regimes", "verbal", "tracking", "sweep")},
}


def made(study, name, seed, n_train=120, n_test=80):
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
            "context": "",
            "question": [f"{name} {i}" for i in range(n)] * 2,
            "prompt": [f"{name} {i}" for i in range(2 * n)],
        }
    )
    files.write_table(study.path(paths.PROMPTS) / f"{name}.parquet", prompts)
    stream = (X @ DECODER + 0.1 * rng.normal(size=(X.shape[0], DECODER.shape[1]))).astype(np.float32)
    place = study.path(paths.ACTIVATIONS) / LAYER / f"{name}.0.safetensors"
    activations.write(place, stream, prompt_ids(prompts), {"layer": 1})
    place = study.path(paths.FEATURES) / SAE / f"{name}.safetensors"
    features.write(place, sparse.csr_array(X), Health(D, 1.0, 0.9, 0.0), {})


def computed(study):
    """What the stages write of the study's training samples and of the analyses."""
    for space in study.spaces:
        for name in study.datasets:
            found = stability.resample(study, space, name)
            resamples.write(study.path(paths.RESAMPLES) / space.name / f"{name}.safetensors", found.resampled)
    for analysis in ANALYSES:
        for part in analysis.parts(study):
            path = study.path(paths.ANALYSES) / analysis.name / f"{part}.parquet"
            files.write_table(path, analysis.compute(study, part))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    study = Study.open(folder)
    for seed, name in enumerate(NAMES):
        made(study, name, seed)
    decoder = DECODER.astype(np.float32)
    known = Directions(np.arange(D), decoder, decoder, "batchtopk")
    place = study.path(paths.FEATURES) / f"{SAE}.directions.safetensors"
    features.write_directions(place, known, Decoder(np.arange(D), decoder, np.zeros(decoder.shape[1], np.float32)))
    for space in study.spaces:
        for name in NAMES:
            fit_item(study, space, name)
    computed(study)
    return study


@pytest.fixture
def fresh(study, tmp_path):
    shutil.copytree(study.root, tmp_path / "study")
    return Study.open(tmp_path / "study")


def test_the_tables_have_their_columns_and_name_the_sae(study):
    for analysis in ANALYSES:
        found = study.analysis(analysis.name, SAE)
        columns = list(found.columns)
        assert columns[: len(analysis.table.names)] == analysis.table.names
        assert (len(columns) > len(analysis.table.names)) == (analysis.name == "candidates")
        assert len(found)
        assert "sae" not in found or set(found["sae"]) == {SAE}


def test_the_planted_truth_comes_through_the_files(study):
    gaps, chosen, known = (study.analysis(name, SAE) for name in ("oracle_gap", "policies", "candidates"))
    one = gaps[(gaps.train == "a") & (gaps.test == "b") & (gaps.probe == "sparse_1")]
    assert set(one["feature_ids"]) == {str(SPURIOUS)}
    assert set(one["oracle_feature_ids"]) == {str(SHARED)}
    worst = chosen[(chosen.train == "a") & (chosen.test == "b") & (chosen.policy == "worst_case")]
    assert worst.iloc[0]["feature_ids"] == str(SHARED)
    assert len(known[["train", "test"]].drop_duplicates()) == 6
    assert {"auc_on.c", "agreement_with.a", "few_16.1"} <= set(known.columns)
    assert COMMON.keys() == {SHARED}


def test_training_samples_are_drawn_at_every_size_and_tested_under_the_own_template(study):
    layer, sae = (stability.resample(study, study.space(name), "a") for name in (LAYER, SAE))
    assert layer.features.empty
    assert layer.resampled.residual.shape == (4, DECODER.shape[1])
    assert len(sae.resampled.best) == 4
    assert all(ids[0] == SPURIOUS for ids in sae.resampled.best)
    for found in (layer.areas, sae.areas, sae.features):
        drawn = found.groupby(["n_train", "resampling"], sort=False)["resamples"].max()
        assert drawn.to_dict() == {(n, way): count for n in (120, 60) for way, count in TWO_WAYS}
    assert set(sae.areas["test_variation"]) == {"default"}
    assert sae.areas["in_domain"].equals(sae.areas["test"] == "a")
    assert (set(layer.areas["sae"]), set(sae.areas["layer"])) == ({""}, {1})
    first = sae.features[sae.features["feature"] == SPURIOUS]
    assert (first["selected_first"] > 0.5).all()


def test_every_table_is_told_in_the_report(study):
    found = [stability.resample(study, space, "a") for space in study.spaces]
    tables = {analysis.name: study.analysis(analysis.name, SAE) for analysis in ANALYSES}
    tables["bootstrap"] = pd.concat([one.areas for one in found])
    tables["bootstrap_features"] = found[1].features
    sections = [stability.section(tables), *(one.section(tables) for one in ANALYSES if one.section)]
    assert [one.id for one in sections] == ["sure", "gap", "predict", "policies"]
    for one in sections:
        assert not any("nan" in said for said in (one.claim, *one.told))
        assert all(len(row) == len(listed.headings) > 0 for listed in one.tables for row in listed.rows)
        assert all(listed.rows for listed in one.tables)
    means, summary, best = sections[0].tables
    assert (
        {row[1].text for row in means.rows} == {row[2].text for row in summary.rows} == {"in domain", "out of domain"}
    )
    assert best.rows[0][2].text == str(SPURIOUS)
    assert best.rows[0][-1].small == "1.00\N{EN DASH}1.00"


def test_only_the_template_of_the_dataset_is_used(study):
    for domain in domains_of(study, study.space(SAE)):
        assert (len(domain.train), domain.unseen.shape[0], len(domain.test.labels)) == (120, 80, 80)
        assert domain.names == {domain.name}


def test_test_rows_that_another_dataset_trains_on_are_left_out(fresh):
    table = fresh.prompts("b")
    again = table.assign(
        question=[f"A  {i % 200 - 120}" if 120 <= i % 200 < 130 else q for i, q in enumerate(table["question"])]
    )
    files.write_table(fresh.path(paths.PROMPTS) / "b.parquet", again)
    tested = {d.name: (d.unseen.shape[0], len(d.test.labels)) for d in domains_of(fresh, fresh.space(SAE))}
    assert tested == {"a": (80, 80), "b": (70, 70), "c": (80, 80)}


def test_datasets_that_share_most_of_their_prompts_are_one(fresh):
    for shared, together in ((100, False), (101, True)):  # of 200
        table = fresh.prompts("b")
        table = table.assign(question=[f"A  {i}" if i < shared else f"b {i}" for i in range(200)] * 2)
        files.write_table(fresh.path(paths.PROMPTS) / "b.parquet", table)
        names = {"a", "b"} if together else {"a"}
        assert same_data(fresh)["a"] == names
        assert same_data(fresh)["c"] == {"c"}


def test_two_runs_give_the_same_bytes(fresh, study):
    shutil.rmtree(fresh.path(paths.ANALYSES))
    shutil.rmtree(fresh.path(paths.RESAMPLES))
    computed(fresh)
    for place in (paths.ANALYSES, paths.RESAMPLES):
        paths_made = sorted(path for path in fresh.path(place).rglob("*") if path.is_file())
        assert len(paths_made) == (4 if place == paths.ANALYSES else 6)
        for path in paths_made:
            assert path.read_bytes() == (study.root / path.relative_to(fresh.root)).read_bytes()


@pytest.mark.parametrize(
    ("missing", "analysis"),
    [
        (f"artifacts/probes/{SAE}/a.safetensors", oracle_gap),
        (f"artifacts/features/{SAE}.directions.safetensors", candidate_table),
        (f"artifacts/resamples/{SAE}/a.safetensors", candidate_table),
        (f"artifacts/analyses/candidates/{SAE}.parquet", predictors),
        (f"artifacts/analyses/candidates/{SAE}.parquet", policies),
    ],
)
def test_a_missing_file_is_named(fresh, missing, analysis):
    (fresh.root / missing).unlink()
    with pytest.raises(UserError, match=missing):
        analysis.compute(fresh, SAE)


def test_one_dataset_gives_empty_tables(fresh):
    params = PARAMS | {"study": PARAMS["study"] | {"datasets": ["a"]}}
    (fresh.root / "params.yaml").write_text(yaml.safe_dump(params))
    one = Study.open(fresh.root)
    computed(one)
    for analysis in ANALYSES:
        found = one.analysis(analysis.name, SAE)
        assert found.empty
        assert list(found.columns) == analysis.table.names
