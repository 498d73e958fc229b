"""The whole pipeline as a person runs it: `dvc repro` on a small copy of the demo, and what it does when disturbed."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import safetensors.numpy
import yaml
from pandas.testing import assert_frame_equal
from sklearn.metrics import accuracy_score, roc_auc_score

from project import ANALYSES, LAYER, MADE, ONCE, SAE, SIZES, SPACES, TRAINS, tracked
from sae_transfer import activations, cells, config, features, probe_files, resampling, stages
from sae_transfer.stages.encode import encode
from sae_transfer.stages.extract import extract
from sae_transfer.stages.fit import fit
from sae_transfer.stages.join import join
from sae_transfer.stages.length import length_strata
from sae_transfer.stages.prepare import prepare
from sae_transfer.stages.report import make_report
from sae_transfer.stages.verbal import verbal_judgement
from sae_transfer.transfer import COLUMNS

TESTS = (("passages", "default"), ("passages", "terse"), ("people", "default"))
EVERY_SPACE = (*SPACES, "text", "verbal")
SCORED = ["train", "test", "test_variation", "condition", "n_train", "probe", "family", "rank", "n_features"]
REPEATED = ("shuffled_labels", "random_features", "random_sae")


@pytest.fixture(scope="module")
def table(project):
    parts = [pd.read_parquet(project.folder / f"results/transfer/{space}.parquet") for space in EVERY_SPACE]
    return pd.concat(parts, ignore_index=True)


def test_every_cell_is_there_once(table):
    assert list(table.columns) == list(COLUMNS)
    dense = ("residual", "mean_difference", "shuffled_labels", "target_trained")
    kinds = {(LAYER, probe, "residual", 0, 0) for probe in dense} | {(SAE, "reconstruction", "residual", 0, 0)}
    kinds |= {(SAE, probe, "sparse_1", 1, 1) for probe in ("random_features", "random_sae", "target_trained")}
    kinds |= {("text", "text", family, 0, 0) for family in ("tfidf", "length", "overlap")}
    kinds |= {(SAE, "sparse_1", "sparse_1", rank, 1) for rank in (1, 2, 3)}
    kinds |= {(SAE, "sparse_n", "sparse_n", 0, n) for n in (2, 8)} | {(SAE, "shuffled_labels", "sparse_1", 1, 1)}
    chosen_n = (table["probe"] == "pca") | (table["probe"] != "sparse_n") & (table["family"] == "sparse_n")
    assert chosen_n.sum() == 5 * len(TRAINS) * len(TESTS) * len(SIZES)  # pca, three controls, the ceiling
    verbal = table[table["space"] == "verbal"]
    assert list(verbal[["train", "test", "n_train"]].itertuples(index=False, name=None)) == [
        (test, test, 0) for test, _ in TESTS
    ]
    rows = table[~chosen_n & (table["space"] != "verbal")]
    keys = ["space", "probe", "family", "rank", "n_features", "train", "test", "test_variation", "n_train"]
    found = list(rows[keys].itertuples(index=False, name=None))
    wanted = {(*kind, train, *test, size) for kind, train, test, size in product(kinds, TRAINS, TESTS, SIZES)}
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_the_control_of_the_n_sparse_probe_has_the_n_that_was_selected(table):
    where = ["train", "test", "test_variation", "n_train"]
    chosen = table[(table["probe"] == "sparse_n") & table["selected"]].set_index(where)["n_features"]
    assert len(chosen) == len(TRAINS) * len(TESTS) * len(SIZES)
    for kind in REPEATED:
        control = table[(table["probe"] == kind) & (table["family"] == "sparse_n")].set_index(where)
        assert chosen.sort_index().equals(control["n_features"].sort_index())


def test_a_row_says_where_its_numbers_come_from(project, table):
    assert (table["in_domain"] == (table["train"] == table["test"])).all()
    assert set(table["in_domain"]) == {True, False}
    places = set(zip(table["space"], table["sae"], table["layer"].fillna(-1), strict=True))
    assert places == {(LAYER, "", 3), (SAE, SAE, 3), ("text", "", -1), ("verbal", "", -1)}
    assert set(table.loc[table["uses_target"], "probe"]) == {"target_trained"}
    assert set(table["model"]) == {"models/demo/model"}
    assert set(table["condition"]) == {"test"}
    for test, rows in table.groupby("test"):
        prompts = pd.read_parquet(project.folder / f"artifacts/prompts/{test}.parquet")
        tested = prompts[(prompts["split"] == "test") & (prompts["variation"] == "default")]
        assert set(rows["n_test"]) == {len(tested)} == {40}
        assert set(rows["n_groups"]) == {tested["group"].nunique()}


@pytest.mark.parametrize(
    ("space", "kind", "options"), [(SAE, "sparse_n", ()), (SAE, "sparse_1", ("--rank", "2")), (LAYER, "residual", ())]
)
def test_a_saved_probe_scores_prompts_as_the_study_scored_them(project, space, kind, options):
    prompts = pd.read_parquet(project.folder / "artifacts/prompts/people.parquet")
    scores = pd.read_parquet(project.folder / f"artifacts/scores/{space}.parquet")
    chosen = (scores["train"] == "passages") & (scores["test"] == "people") & (scores["n_train"] == SIZES[0])
    chosen &= (scores["probe"] == kind) & (scores["rank"] == 2 if options else scores["selected"])
    wanted = scores[chosen].merge(prompts[prompts["split"] == "test"], on="id").head(6)
    file = project.folder.parent / f"{kind}.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in wanted["prompt"]))
    words = ("score", str(file), "--train", "passages", "--space", space, "--probe", kind, *options)
    code, out, error = project.run("env", "PYTHONPATH=src", "python", "-m", "sae_transfer.cli", *words, "--json")
    assert code == 0, error
    verdicts = [json.loads(line) for line in out.splitlines()]
    assert [verdict["prompt"] for verdict in verdicts] == list(wanted["prompt"])
    assert [verdict["score"] for verdict in verdicts] == pytest.approx(list(wanted["score"]), abs=1e-4)
    assert [verdict["probability"] for verdict in verdicts] == pytest.approx(list(wanted["probability"]), abs=1e-4)
    assert [verdict["answerable"] for verdict in verdicts] == list(wanted["probability"] >= 0.5)
    fired = [feature for verdict in verdicts for feature in verdict["fired"]]
    assert bool(fired) == (space == SAE)
    for verdict in verdicts:  # what the features add, and the bias, make the score
        total = sum(feature["contribution"] for feature in verdict["fired"])
        verdict["rest"] = verdict["score"] - total
    if space == SAE:
        assert np.ptp([verdict["rest"] for verdict in verdicts]) < 1e-4


def test_prompts_are_balanced_and_no_group_crosses_the_split(project):
    for dataset in TRAINS:
        prompts = pd.read_parquet(project.folder / f"artifacts/prompts/{dataset}.parquet")
        assert prompts.groupby("group")["split"].nunique().max() == 1
        for variation, rows in prompts.groupby("variation"):
            counts = rows.groupby(["split", "label"]).size().to_dict()
            assert counts == {("train", 0): 30, ("train", 1): 30, ("test", 0): 20, ("test", 1): 20}, variation


def test_the_csv_holds_what_the_parquet_files_hold(project, table):
    csv = pd.read_csv(project.folder / "results/transfer.csv", keep_default_na=False, na_values={})
    for column in table.columns:
        if pd.api.types.is_float_dtype(table[column]) or column == "layer":
            csv[column] = pd.to_numeric(csv[column])
    csv = csv.astype({"feature_ids": str, "layer": "Int64"})
    bootstrapped = ["auc_train_sd", "reason"]
    assert_frame_equal(csv.drop(columns=bootstrapped), table.drop(columns=bootstrapped), rtol=1e-5, check_dtype=False)


def test_the_csv_has_the_training_spread_of_every_probe_under_bs_own_template(project):
    csv = pd.read_csv(project.folder / "results/transfer.csv", keep_default_na=False, na_values={"auc_train_sd": [""]})
    own = (csv["test_variation"] == "default") & csv["probe"].isin(resampling.PROBES)
    known = csv["auc_train_sd"].notna()
    spread = pd.read_csv(project.folder / "results/bootstrap.csv", keep_default_na=False, na_values={"auc_sd": [""]})
    short = spread["auc_sd"].isna()
    assert (short <= (spread["resamples"] < 2)).all()
    assert spread.loc[short, "reason"].str.contains("training samples").all()
    assert known[own].mean() > 0.9
    assert (known == ~csv["reason"].str.contains("auc_train_sd")).all()
    assert csv.loc[~own & ~known, "reason"].str.contains("trained once").all()


def test_the_bootstrap_keeps_what_other_analyses_read(project):
    made = project.folder / "artifacts/bootstrap"
    best = pd.read_parquet(made / SAE / "features.parquet")
    assert list(best.columns) == ["train", "resample", "rank", "feature"]
    assert set(zip(best["train"], best["resample"], strict=True)) == set(product(TRAINS, range(4)))
    for _, one in best.groupby(["train", "resample"]):
        assert one["rank"].tolist() == list(range(1, len(one) + 1))
        assert one["feature"].is_unique
        assert 10 < len(one) <= 100
    weights = safetensors.numpy.load_file(made / LAYER / "probes.safetensors")
    assert {name: array.shape for name, array in weights.items()} == dict.fromkeys(TRAINS, (4, 128))


def test_intervals_contain_what_they_are_of(table):
    for value, name in (("auc", "auc"), ("accuracy", "accuracy"), ("delta_residual", "delta")):
        known = table[table[f"{name}_low"].notna()]
        low, high = known[f"{name}_low"], known[f"{name}_high"]
        assert len(known) > 100
        assert (low <= known[value] + 1e-12).all()
        assert (known[value] <= high + 1e-12).all()
        # At its limits, and at 0.5 for a feature that is silent on B, every resample gives the same.
        inside = ~known["auc"].isin([0.0, 0.5, 1.0]) & ~known[value].isin([0.0, 0.5, 1.0])
        assert inside.sum() > 30
        assert (low < high)[inside].mean() > 0.9


def test_what_is_missing_has_a_reason_and_what_has_a_reason_is_missing(table):
    base = {"delta_low": "delta_residual", "delta_high": "delta_residual"}
    for row in table.to_dict("records"):
        told = {part.split(": ")[0] for part in row["reason"].split("; ")} - {""}
        missing = {key for key, value in row.items() if pd.isna(value)}
        assert {base.get(key, key.removesuffix("_low").removesuffix("_high")) for key in missing} == told


def test_the_saved_scores_give_each_auc_and_accuracy_again(project, table):
    checked = 0
    for space in EVERY_SPACE:
        scores = pd.read_parquet(project.folder / f"artifacts/scores/{space}.parquet")
        rows = table[(table["space"] == space) & ~table["probe"].isin(REPEATED)].set_index(SCORED)
        areas = {}
        for key, part in scores.groupby(SCORED):
            areas[key] = roc_auc_score(part["label"], part["score"])
            assert rows.loc[key, "auc"] == pytest.approx(areas[key], abs=1e-12)
            right = accuracy_score(part["label"], part["probability"] >= 0.5)
            assert rows.loc[key, "accuracy"] == pytest.approx(right, abs=1e-12)
            checked += 1
        assert set(areas) == set(rows.index)
    assert checked == (~table["probe"].isin(REPEATED)).sum()


def test_differences_are_to_the_residual_probe_of_the_same_training_rows(table):
    where = ["train", "test", "test_variation", "n_train"]
    residual = table[table["probe"] == "residual"].set_index(where)["auc"]
    rows = table[(table["probe"] != "residual") & table["layer"].notna()]
    against = residual.loc[list(rows[where].itertuples(index=False, name=None))].to_numpy()
    np.testing.assert_allclose(rows["delta_residual"], rows["auc"] - against, atol=1e-12)


def test_the_saved_probes_give_the_saved_scores_again(project):
    for space, train, (test, variation) in product(SPACES, TRAINS, TESTS):
        prompts = pd.read_parquet(project.folder / f"artifacts/prompts/{test}.parquet")
        wanted = ((prompts["split"] == "test") & (prompts["variation"] == variation)).to_numpy()
        made = project.folder / "artifacts"
        if space == SAE:
            X = features.read(made / "features" / test, SAE).toarray()[wanted]
            rebuilt = features.read_reconstruction(made / "features" / test, SAE)[wanted]
        else:
            X = activations.read(made / "activations" / test, 3)[wanted]
        scores = pd.read_parquet(made / f"scores/{space}.parquet")
        scores = scores[(scores["train"] == train) & (scores["test"] == test)]
        scores = scores[scores["test_variation"] == variation].set_index(["n_train", "probe", "rank", "n_features"])
        for probe in probe_files.read(made / "probes" / space / train):
            if probe.kind in REPEATED:
                continue
            rows = rebuilt if probe.kind == "reconstruction" else X
            ids = np.arange(rows.shape[1]) if probe.feature_ids is None else probe.feature_ids
            n_features = probe.n_components if probe.feature_ids is None else len(ids)
            saved = scores.loc[(probe.n_train, probe.kind, probe.rank, n_features)]
            assert list(saved["id"]) == list(prompts["id"][wanted])
            assert list(saved["label"]) == list(prompts["label"][wanted])
            expected = rows[:, ids].astype(np.float64) @ probe.weights + probe.bias
            np.testing.assert_allclose(saved["score"], expected, rtol=1e-5, atol=1e-5)


def test_shuffled_labels_are_worth_nothing_and_the_probes_something(table):
    control = table[table["probe"] == "shuffled_labels"]
    assert len(control) == 3 * len(TRAINS) * len(TESTS) * len(SIZES)
    standard_error = control["auc_train_sd"] / np.sqrt(20)
    assert ((control["auc"] - 0.5).abs() < 4 * standard_error + 0.02).all()
    assert abs(control["auc"].mean() - 0.5) < 0.15
    assert ((control["auc_low"] <= 0.5) & (control["auc_high"] >= 0.5)).mean() > 0.6
    assert control["auc_train_sd"].mean() > 0.02
    own = table[(table["probe"] == "residual") & table["in_domain"] & (table["test_variation"] == "default")]
    assert own["auc"].mean() > 0.65


def test_the_ceiling_is_the_probe_that_b_trained(table):
    where = ["space", "test_variation", "n_train", "family", "test"]
    ceiling = table[table["probe"] == "target_trained"].set_index(where)["auc"]
    own = table[table["probe"].isin(["residual", "sparse_1", "sparse_n"]) & table["selected"] & table["in_domain"]]
    own = own.set_index(where)["auc"]
    assert set(ceiling.index) == set(own.index)
    np.testing.assert_allclose(ceiling, own.loc[ceiling.index], atol=1e-12)


def test_the_models_own_words_say_whether_it_answers(table):
    verbal = table[table["space"] == "verbal"]
    assert (verbal["auc"] > 0.9).all()
    assert (verbal["auc_low"] < verbal["auc"]).all()


def test_length_strata_hold_every_headline_probe(project, table):
    found = pd.read_csv(project.folder / "results/length.csv")
    rows = cells.headline(table[~table["probe"].isin(REPEATED)])
    key = ["space", "train", "test", "probe", "family", "n_features"]
    assert set(found[key].itertuples(index=False, name=None)) == set(rows[key].itertuples(index=False, name=None))
    merged = found.merge(rows, on=key, suffixes=("", "_table"))
    assert len(merged) == len(found) == len(rows)
    for name in ("auc", "auc_low", "auc_high"):
        np.testing.assert_allclose(merged[name], merged[f"{name}_table"], atol=1e-5)
    assert found["stratified_auc"].notna().mean() > 0.9
    assert ((found["low"] <= found["stratified_auc"]) | found["low"].isna()).all()


def test_without_abstaining_words_there_is_no_verbal_judgement(fresh, monkeypatch):
    fresh.edit(lambda params: params.update(verbal={"abstaining": []}))
    for name in ("results/transfer/verbal.parquet", "artifacts/scores/verbal.parquet"):
        Path(name).unlink()
    for stage in (verbal_judgement, length_strata, join, make_report):
        stage()
    assert len(pd.read_parquet("results/transfer/verbal.parquet")) == 0
    assert set(pd.read_csv("results/transfer.csv")["space"]) == {*SPACES, "text"}


def test_a_second_run_runs_nothing(fresh):
    def times():
        return {p: p.stat().st_mtime_ns for name in MADE for p in (fresh.folder / name).rglob("*") if p.is_file()}

    before, lock = times(), (fresh.folder / "dvc.lock").read_bytes()
    said = fresh.dvc("repro")
    assert said.count("Running stage") == 1  # MLflow might lack something
    assert "Running stage 'track'" in said
    assert "0 runs written" in said
    assert times() == before
    assert (fresh.folder / "dvc.lock").read_bytes() == lock


def test_killed_in_the_middle_and_run_again_gives_the_same_bytes_as_a_run_in_one_go(project, fresh):
    """Fits and transfer are forgotten first, so that this is a second run of them and no cache answers for it."""
    before = project.hashes(*MADE)
    _forget(fresh, ("fit", "transfer"))
    assert not fresh.hashes("artifacts/probes")

    running = fresh.start(sys.executable, "-m", "dvc", "repro", start_new_session=True)
    lock, deadline = fresh.folder / "dvc.lock", time.monotonic() + 60
    while not ("fit_layer@3-passages:" in lock.read_text() and _runs_a_stage(running.pid)):
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert not list((fresh.folder / "results/transfer").glob(f"{SAE}.*"))

    said = fresh.dvc("repro")
    after = len(SPACES) * (len(TRAINS) + 1) + len(("track",))  # what reads equal bytes does not run again
    assert said.count("Running stage") == after - 1  # what was finished stays
    assert fresh.hashes(*MADE) == before


def _forget(project, names):
    """Deletes what the stages made, their entries in dvc.lock, and the cache of runs that would bring it back."""
    path = project.folder / "dvc.lock"
    lock = yaml.safe_load(path.read_text())
    for name in [name for name in lock["stages"] if name.startswith(names)]:
        for out in lock["stages"].pop(name)["outs"]:
            target = project.folder / out["path"]
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    path.unlink()
    path.write_text(yaml.safe_dump(lock))
    shutil.rmtree(project.folder / ".dvc/cache/runs")


def _runs_a_stage(pid):
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "sae_transfer.stages.fit" in child.cmdline():
                return True
    return False


def test_prompts_activations_and_features_made_again_are_the_same_bytes(fresh):
    folders = ("artifacts/prompts", "artifacts/activations/people", "artifacts/features/people")
    before = fresh.hashes(*folders)
    for folder in folders[1:]:
        shutil.rmtree(folder)
    Path("artifacts/prompts/people.parquet").unlink()
    for stage in (prepare, extract, encode):
        stage("people")
    assert len(before) > 5
    assert fresh.hashes(*folders) == before


def test_a_stored_activation_is_that_of_its_own_prompt(fresh):
    params = config.section(config.read(), activations.ModelParams, "model")
    prompts = pd.read_parquet("artifacts/prompts/passages.parquet")
    rows = np.array([150, 3, 77])  # of both templates and both splits, each prompt alone and in another order
    model, tokenizer = activations.load_model(params)
    expected = activations.residual_stream(model, tokenizer, list(prompts["prompt"][rows]), params)[3]
    stored = activations.read(Path("artifacts/activations/passages"), 3)
    np.testing.assert_allclose(stored[rows], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert not np.allclose(stored[rows + 1], expected, rtol=1e-2)


def test_the_labels_of_test_rows_change_no_probe(fresh):
    def with_other_labels(split):
        path = Path("artifacts/prompts/passages.parquet")
        prompts = pd.read_parquet(path)
        rows = prompts["split"] == split
        prompts.loc[rows, "label"] = np.random.default_rng(1).permutation(prompts.loc[rows, "label"])
        path.unlink()
        prompts.to_parquet(path, index=False)
        for space in SPACES:
            fit(space, "passages")
        return fresh.hashes(*(f"artifacts/probes/{space}/passages" for space in SPACES))

    before = fresh.hashes(*(f"artifacts/probes/{space}/passages" for space in SPACES))
    assert with_other_labels("test") == before
    after = with_other_labels("train")
    assert all(after[path] != before[path] for path in before)


def _changed(project):
    """The stages that DVC would run; not those that only follow from them."""
    return set(json.loads(project.dvc("status", "--json")))


def test_a_third_dataset_runs_its_own_stages_and_the_comparisons(fresh):
    def add(params):
        params["study"]["datasets"].insert(1, "snippets")  # in the middle: stages have names, not positions
        params["datasets"]["snippets"] = params["datasets"]["people"] | {"path": "data/demo/snippets.jsonl"}

    fresh.edit(add)
    own = {f"{stage}@snippets" for stage in ("prepare", "extract", "encode")}
    own |= {"fit_layer@3-snippets", f"fit_sae@{SAE}-snippets"}
    compared = {f"{stage}_{space}" for stage in ("transfer", "bootstrap") for space in ("layer@3", f"sae@{SAE}")}
    assert _changed(fresh) == own | compared | {"directions", *ONCE}


def test_regimes_are_measured_where_params_name_a_training_set(project, fresh):
    off = (project.folder / "results/regimes.csv").read_text()
    assert off.count("\n") == 1
    on = {"datasets": ["people"], "sizes": [30], "imbalance": [], "noise": [0.3], "draws": 2}
    fresh.edit(lambda params: params.update(regimes=on))
    code, _, error = fresh.stage("regimes")
    assert code == 0, error
    found = pd.read_csv(fresh.folder / "results/regimes.csv", keep_default_na=False, na_values={"auc": [""]})
    assert ",".join(found.columns) == off.strip()
    points = {("size", 30.0), ("size", 60.0), ("noise", 0.3)}
    assert set(zip(found["regime"], found["value"], strict=True)) == points
    assert len(found) == len(points) * len(TRAINS) * (1 + 4)
    assert set(zip(found["space"], found["layer"], found["sae"], strict=True)) == {(LAYER, 3, ""), (SAE, 3, SAE)}
    assert (found["auc"].notna() | found["reason"].str.contains("too few")).all()
    assert found["auc"].notna().mean() > 0.8


def test_other_resamples_train_nothing_again(fresh):
    fresh.edit(lambda params: params["transfer"].update(resamples=100))
    measured = {"transfer_layer@3", f"transfer_sae@{SAE}", "text", "verbal", "length", *ANALYSES[1:]}
    assert _changed(fresh) == measured | {"track"}


# MLflow, and DVC's experiments.


def test_every_cell_is_in_mlflow_with_what_dvc_and_the_features_say(project, table):
    runs = tracked(project.folder, kind="cell")
    rows = cells.headline(table)
    assert len(runs) == len(rows)
    (parent,) = tracked(project.folder, kind="study", study="workspace")
    assert parent.data.params["probe.top_k"] == "3"
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    data = {item["path"]: item["md5"] for stage in lock.values() for item in stage["deps"]}
    (run,) = [r for r in runs if r.info.run_name == f"people \N{RIGHTWARDS ARROW} passages · sparse_1 · {SAE}"]
    row = rows.query("space == @SAE and key == 'sparse_1' and train == 'people' and test == 'passages'").iloc[0]
    assert run.data.metrics["auc"] == pytest.approx(row["auc"], abs=1e-6)
    assert run.data.tags["dvc_stage"] == f"transfer_sae@{SAE}"
    assert [i.dataset.digest for i in run.inputs.dataset_inputs] == [
        data[f"data/demo/{name}.jsonl"] for name in ("people", "passages")
    ]
    place = project.folder / "mlruns/artifacts/sae-transfer"
    listed = json.loads((place / run.info.run_id / "artifacts/features.json").read_text())
    told = pd.DataFrame(listed["data"], columns=listed["columns"])
    best = next(p for p in probe_files.read(project.folder / f"artifacts/probes/{SAE}/people") if p.n_train == 60)
    assert told["feature"].iloc[0] == best.feature_ids[0] == int(row["feature_ids"])
    assert told["scale"].iloc[0] == pytest.approx(best.weights[0], rel=1e-5)
    assert told["auc on passages"].iloc[0] == pytest.approx(row["auc"], abs=1e-5)
    prompts = pd.read_parquet(project.folder / "artifacts/prompts/people.parquet")
    train = ((prompts["split"] == "train") & (prompts["variation"] == "default")).to_numpy()
    fired = features.read(project.folder / "artifacts/features/people", SAE)[np.flatnonzero(train)].toarray() > 0
    assert told["density"].iloc[0] == pytest.approx(fired[:, best.feature_ids[0]].mean(), abs=1e-6)
    assert (place / parent.info.run_id / "artifacts/figures/in_domain_vs_ood.png").stat().st_size > 1000


def one_line(code, error):
    lines = [line for line in error.splitlines() if "error: " in line]
    assert code == 2, error
    assert "Traceback" not in error
    assert len(lines) == 1, error
    assert error.splitlines()[-1] == lines[0]
    return lines[0][lines[0].index("error: ") :]


@pytest.fixture
def unchanged(fresh):
    before = fresh.hashes(*MADE)
    yield fresh
    assert fresh.hashes(*MADE) == before


@pytest.fixture
def called(unchanged, monkeypatch, capsys):
    """Calls a stage as its command does, in this process: starting another for each error takes seconds."""

    def call(stage, *words):
        monkeypatch.setattr(sys, "argv", [stage.__name__, *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            stages.run(stage)
        return one_line(ended.value.code, capsys.readouterr().err)

    return call


def command_fails(project, *words):
    code, _, error = project.stage(*words)
    assert len(error.splitlines()) == 1, error
    return one_line(code, error)


def test_unknown_dataset(unchanged):
    said = command_fails(unchanged, "prepare", "pasages")
    assert "'pasages'" in said
    assert "did you mean passages?" in said


def test_unknown_dataset_in_the_study(unchanged):
    unchanged.edit(lambda params: params["study"]["datasets"].append("pasages"))
    code, _, error = unchanged.run(sys.executable, "-m", "dvc", "repro")
    assert code != 0
    assert "'extract@pasages'" in error  # DVC's words: it misses the file before any code of ours could run
    assert "Traceback" not in error


def test_one_class(unchanged):
    rows = [json.loads(line) for line in (unchanged.folder / "data/demo/people.jsonl").read_text().splitlines()]
    (unchanged.folder / "mine.jsonl").write_text("".join(json.dumps(row | {"label": 1}) + "\n" for row in rows))
    unchanged.edit(lambda params: params["datasets"]["people"].update(path="mine.jsonl"))
    said = command_fails(unchanged, "prepare", "people")
    assert "mine.jsonl" in said
    assert "480 answerable and 0 unanswerable" in said


def test_layer_beyond_the_model(unchanged):
    unchanged.edit(lambda params: params["model"].update(layers=[3, 17]))
    said = command_fails(unchanged, "extract", "people")
    assert "layer 17" in said
    assert "model.layers" in said


def test_sae_of_another_layer(unchanged):
    unchanged.edit(lambda params: params["saes"].update(narrow_2={"layer": 3, "path": "models/demo/saes/narrow_2"}))
    unchanged.edit(lambda params: params["study"].update(saes=["narrow_2", SAE]))
    said = command_fails(unchanged, "encode", "people")
    assert "saes.narrow_2" in said
    assert "layer 3" in said


def _change_weights(change):
    path = Path("models/demo/model/model.safetensors")
    weights = safetensors.numpy.load_file(path)
    key = next(name for name in sorted(weights) if name.endswith("layers.1.mlp.down_proj.weight"))
    change(weights, key)
    path.unlink()
    safetensors.numpy.save_file(weights, path, metadata={"format": "pt"})
    return key.removeprefix("model.")


def test_weights_with_a_tensor_deleted(called):
    key = _change_weights(lambda weights, key: weights.pop(key))
    said = called(extract, "people")
    assert key in said
    assert "missing" in said


def test_weights_with_nan(called):
    _change_weights(lambda weights, key: weights[key].fill(np.nan))
    said = called(extract, "people")
    assert "row 0: NaN or infinity" in said
    assert "layer 3" in said


def test_prompt_longer_than_the_context(called):
    context = json.loads(Path("models/demo/model/config.json").read_text())["max_position_embeddings"]
    path = Path("artifacts/prompts/people.parquet")
    kept = path.read_bytes()
    prompts = pd.read_parquet(path)
    prompts.loc[7, "prompt"] = "Hugo " * (context + 1)
    path.unlink()
    prompts.to_parquet(path, index=False)
    said = called(extract, "people")
    path.write_bytes(kept)
    assert "row 7" in said
    assert f"context has {context}" in said


def test_a_stage_that_fails_in_dvc_repro_leaves_the_results_of_the_last_run(fresh):
    before = fresh.hashes(*MADE)
    fresh.edit(lambda params: params["datasets"]["people"].update(n_train=6000))
    code, _, error = fresh.run(sys.executable, "-m", "dvc", "repro")
    assert code != 0
    assert "error: dataset people: n_train needs 3000" in error
    assert fresh.hashes("results", "report") == {p: h for p, h in before.items() if not p.startswith("artifacts")}
    fresh.edit(lambda params: params["datasets"]["people"].update(n_train=60))
    said = fresh.dvc("repro")
    assert said.count("python -m") == said.count("stages.track") == 1  # the rest comes back from the cache
    assert fresh.hashes(*MADE) == before
