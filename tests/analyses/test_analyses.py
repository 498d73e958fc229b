"""The analyses on a small made-up study, read from real artifacts: what they give, also where the study is strange."""

import io
import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest

from planted import balanced
from planted import features as sae_features
from sae_transfer.analyses.analysis_registry import ANALYSES
from sae_transfer.analyses.feature_matches import ANALYSIS as MATCHES
from sae_transfer.artifacts import activations, features, resamples
from sae_transfer.artifacts.features import Decoder, Directions, Health
from sae_transfer.artifacts.resamples import Resampled
from sae_transfer.core import files, paths
from sae_transfer.core.errors import UserError
from sae_transfer.core.space import TEXT
from sae_transfer.pipeline.params import Params
from sae_transfer.pipeline.study import Study, prompt_ids
from sae_transfer.probing import kinds, probe_files
from sae_transfer.results.sections import look_up
from sae_transfer.results.transfer_table import SCORE_COLUMNS

D, WIDTH, N = 12, 40, 120
PROBE = {"n_folds": 3, "C_grid": [0.1, 1.0], "N": [2, 4], "top_k": 3, "repeats": 3, "matched_n_train": 80}
TOLD = ("similarity", "variations", "calibration", "saes", "splitting", "matches", "length", "regimes")


def params(saes):
    dataset = {"loader": "table", "path": "x.jsonl", "n_train": 80, "n_test": 40}
    empty = {name: {} for name in ("bootstrap", "verbal", "generalization", "tracking", "sweep")}
    return Params.model_validate(
        empty
        | {
            "seed": 0,
            "study": {"datasets": ["a", "b"], "saes": saes},
            "model": {"name": "tiny", "layers": [1]},
            "saes": {name: {"layer": 1, "path": f"saes/{name}"} for name in saes},
            "datasets": {"a": dataset, "b": dataset},
            "probe": PROBE,
            "transfer": {"resamples": 50},
            "regimes": {"datasets": ["a"], "sizes": [20], "imbalance": [0.5], "noise": [], "draws": 2},
        }
    )


def prompts(rng, labels, templates):
    about = {"id": [f"i{i}" for i in range(N)], "group": [f"g{i // 2}" for i in range(N)], "label": labels}
    rows = pd.DataFrame(about | {"split": np.where(np.arange(N) < 80, "train", "test")})
    rows["prompt"] = ["x" * n for n in rng.integers(10, 60, N)]
    rows["context"], rows["question"] = "", [str(n) for n in rng.integers(1 << 60, size=N)]  # no dataset shares one
    return pd.concat([rows.assign(variation=template) for template in templates], ignore_index=True)


def write_dataset(study, name, seed, templates, constant):
    rng = np.random.default_rng(seed)
    table = prompts(rng, np.r_[balanced(rng, 80), balanced(rng, 40)], templates)
    labels = table["label"].to_numpy()
    files.write_table(study.path(paths.PROMPTS) / f"{name}.parquet", table)
    stream = (rng.normal(size=(len(table), D)) + np.outer(labels, np.eye(D)[0]) * 2).astype(np.float32)
    stream = 0 * stream + 1 if constant else stream
    path = study.path(paths.ACTIVATIONS) / "layer_1" / f"{name}.0.safetensors"
    activations.write(path, stream, prompt_ids(table), {})
    for number, sae in enumerate(study.saes):
        encoded = sae_features(rng, labels, WIDTH, 0.3, {3 + number: (0.1, 0.8)})
        path = study.path(paths.FEATURES) / sae.sae / f"{name}.safetensors"
        features.write(path, encoded, Health(WIDTH, 10.0, 0.9, 0.0), {})


def write_scores(study, space, train):
    """Of sparse probes, and of a text probe that reads the label, of which some test rows were left out."""
    probes = [p for p in study.probes(space, train) if p.kind in kinds.kinds(calibrated=True)] if space.sae else []
    parts = []
    for test in study.datasets:
        rows, template = study.rows(study.layers[0], test, "test"), study.templates(test)[0]
        about = {"train": train, "test": test, "test_variation": template, "condition": "test", "n_train": 80}
        about |= {"id": rows.ids, "group": rows.groups, "label": rows.labels}
        if space == TEXT:
            named = {"probe": "text", "family": "length", "rank": 0, "n_features": 1, "selected": True}
            parts.append(pd.DataFrame(about | named | {"score": rows.labels.astype(float)})[3:])
        for probe in probes:
            named = {"probe": probe.kind, "family": probe.family, "rank": probe.rank}
            named |= {"n_features": probe.n_features, "selected": probe.selected}
            parts.append(pd.DataFrame(about | named | {"score": probe.score(study.rows(space, test, "test").X)}))
    made = pd.concat([pd.DataFrame(columns=SCORE_COLUMNS), *parts]) if parts else pd.DataFrame(columns=SCORE_COLUMNS)
    path = study.path(paths.TRANSFER) / space.name / f"{train}.scores.parquet"
    files.write_table(path, made.infer_objects())


def made_up(folder, *, saes=("s", "t"), templates=("own", "terse"), identical=False, constant=False):
    study = Study(params(list(saes)), folder)
    write_dataset(study, "a", 0, templates, constant)
    write_dataset(study, "b", 0 if identical else 1, templates, constant)
    rng = np.random.default_rng(2)
    for sae in study.saes:
        ids, arrays = np.arange(WIDTH), rng.normal(size=(2, WIDTH, D)).astype(np.float32)
        found = Directions(ids, *arrays, "topk")
        path = study.path(paths.FEATURES) / f"{sae.sae}.directions.safetensors"
        features.write_directions(path, found, Decoder(ids, found.decoder, np.zeros(D, dtype=np.float32)))
    for space in study.spaces:
        for name in study.datasets:
            fitted = kinds.fit(space, study.rows(space, name), 0, study.params.probe)
            probe_files.write(study.path(paths.PROBES) / space.name / f"{name}.safetensors", fitted)
    for name in study.datasets:
        weights = (0 if constant else 1) * (np.eye(D)[0] + 0.1 * rng.normal(size=(5, D)))
        resamples.write(study.path(paths.RESAMPLES) / "layer_1" / f"{name}.safetensors", Resampled(weights, ()))
        for space in study.all_spaces:
            write_scores(study, space, name)
    return study


def tables(study):
    """What each analysis gives, its parts one below the other, after a round through its files."""
    found = {}
    for name in TOLD:
        analysis = ANALYSES[name]
        for part in analysis.parts(study):
            path = study.path(paths.ANALYSES) / name / f"{part}.parquet"
            files.write_table(path, analysis.compute(study, part))
        parts = [study.analysis(name, part) for part in analysis.parts(study)]
        there = [part for part in parts if len(part)]
        found[name] = pd.concat(there, ignore_index=True) if there else analysis.table.frame([])
        assert list(found[name].columns) == analysis.table.names
        for number in {"auc", "accuracy", "similarity"} & set(found[name].columns):
            assert (found[name]["reason"].fillna("").ne("") | found[name][number].notna()).all()
    return found


def told(found):
    """The claim and sentences of every section whose table has rows; its tables are made along the way."""
    there = {name: table for name, table in found.items() if len(table)}
    sections = {name: ANALYSES[name].section(there) for name in there if ANALYSES[name].section}
    assert not [one.claim for one in sections.values() if "nan" in one.claim]
    return {name: [one.claim, *one.told] for name, one in sections.items()}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    study = made_up(tmp_path_factory.mktemp("usual"))
    return study, tables(study)


def test_every_table_is_complete(usual):
    _, found = usual
    assert set(found["variations"]["train_variation"]) == {"own", "terse", "pooled"}
    assert set(found["calibration"]["space"]) == {"layer_1", "s", "t"}
    assert len(found["calibration"]) == (2 + 2 + 2) * 4 * 3
    assert set(zip(found["splitting"]["sae"], found["splitting"]["other"], strict=True)) == {("s", "t"), ("t", "s")}
    assert set(found["saes"]["objective"]) == {"topk"}
    assert set(found["length"]["space"]) == {"s", "t", "text"}
    assert len(found["regimes"]) == 3 * 2 * (1 + 2 * 4)
    assert len(told(found)["saes"]) == 1 + 2


def test_a_second_run_gives_the_same(usual):
    study, found = usual
    for name, table in tables(study).items():
        pd.testing.assert_frame_equal(table, found[name])


def test_whole_numbers_stay_whole_where_one_is_missing(usual):
    study, found = usual
    table = MATCHES.compute(study, "s")
    assert {str(table[name].dtype) for name in ("nearest", "partner")} == {"Int64"}
    text = found["splitting"].to_csv(index=False, float_format="%.6g")
    again = pd.read_csv(io.StringIO(text), dtype=str)
    assert again["needed"].dropna().str.fullmatch(r"\d").all()


def test_rows_without_a_score_are_left_out_of_their_stratum(usual):
    _, found = usual
    text = found["length"][found["length"]["space"] == "text"]
    assert (text["auc"] == 1).all()
    assert (text["stratified_auc"] == 1).all()


def test_scores_of_other_rows_are_refused(usual, tmp_path):
    study, _ = usual
    shutil.copytree(study.root, tmp_path / "copy")
    copy = Study(study.params, tmp_path / "copy")
    path = copy.path(paths.TRANSFER) / "s" / "a.scores.parquet"
    files.write_table(path, files.read_table(path).assign(id="another"))
    with pytest.raises(UserError, match=r"s/a\.scores\.parquet: damaged \(its rows are not those of the prompts\)"):
        ANALYSES["length"].compute(copy, "s")


def test_training_bootstraps_give_similarities_their_intervals(usual, tmp_path):
    study, found = usual
    table = found["similarity"]
    to_probes = table[table["other"] == "residual"]
    assert (to_probes["similarity_low"] <= to_probes["similarity_high"]).all()
    assert table[table["direction"] == "sparse_n"]["gain_over_top_low"].notna().any()
    assert (table["direction"] == "bootstrap").sum() == 4
    shutil.copytree(study.root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / paths.RESAMPLES)
    with pytest.raises(UserError, match=r"layer_1/a\.safetensors: not found; `dvc repro` makes it"):
        ANALYSES["similarity"].compute(Study(study.params, tmp_path / "copy"), "s")


def test_a_section_shows_what_is_there_and_why_a_number_is_missing(usual):
    _, found = usual
    section = ANALYSES["similarity"].section(found)
    (shown,) = section.tables
    probes, readings = ("1-sparse SAE probe", "N-sparse SAE probe"), ("encoder", "decoder")
    assert sorted((row[0].text, row[1].text) for row in shown.rows) == sorted(product(probes, readings))
    variations = ANALYSES["variations"]
    first = look_up(found["variations"][:1], "", variations.table.pick("delta_auc")).rows[0][0]
    assert first.hint.startswith("delta_auc: what the others are compared with")


@pytest.mark.parametrize(
    "strange",
    [{"saes": ("s",)}, {"templates": ("own",)}, {"identical": True}, {"constant": True}, {"saes": ()}],
    ids=["one SAE", "no variations", "one dataset under two names", "constant activations", "no SAE"],
)
def test_a_strange_study_gives_reasons_or_empty_tables(tmp_path, strange):
    found = tables(made_up(tmp_path, **strange))
    told(found)
    if "saes" in strange:
        assert len(found["splitting"]) == len(found["matches"]) == 0
        assert len(found["saes"]) == len(strange["saes"]) * 2 * 2 * 3
    if "templates" in strange:
        assert len(found["variations"]) == 0
    if "identical" in strange:
        away = found["calibration"].query("not in_domain and labels == 0")
        np.testing.assert_allclose(away["auc_lost"], 0, atol=1e-12)
        assert "lost ranking" not in set(found["calibration"]["verdict"])
        twins = found["similarity"].query("direction == 'residual' and measure == 'cosine'")
        np.testing.assert_allclose(twins["similarity"], 1)
    if "constant" in strange:
        residual = found["similarity"].query("direction == 'residual'")
        assert residual["similarity"].isna().all()
        assert residual["reason"].str.startswith("similarity: ").all()
        assert (found["calibration"].query("space == 'layer_1'")["auc"] == 0.5).all()
