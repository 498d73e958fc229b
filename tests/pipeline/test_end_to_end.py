"""The whole pipeline as a person runs it: `dvc repro` on a small copy of the demo, and what it does when disturbed."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from pandas.testing import assert_frame_equal
from sklearn.metrics import accuracy_score, roc_auc_score

from project import LAYER, MADE, SAE, SIZES, SPACES, STAGES, TRAINS, Project, tracked
from sae_transfer.analyses.analysis_registry import TABLES
from sae_transfer.data.overlap import normalised
from sae_transfer.model import extraction, loading
from sae_transfer.pipeline.fit import fit_item
from sae_transfer.pipeline.study import Study
from sae_transfer.probing.kinds import KINDS, kinds
from sae_transfer.results import cells
from sae_transfer.results.transfer_table import TRANSFER

TESTS = (("passages", "default"), ("passages", "terse"), ("people", "default"))
EVERY_SPACE = (*SPACES, "text", "verbal")
SCORED = ["train", "test", "test_variation", "condition", "n_train", "probe", "family", "rank", "n_features"]
REPEATED = kinds(repeated=True)


@pytest.fixture(scope="module")
def table(project):
    folder = project.folder / "artifacts/transfer"
    parts = [pd.read_parquet(folder / f"{space}/{train}.rows.parquet") for space in EVERY_SPACE for train in TRAINS]
    return pd.concat(parts, ignore_index=True)


def test_every_cell_is_there_once(table):
    assert list(table.columns) == TRANSFER.names
    dense = ("residual", "other_rule", "mean_difference", "shuffled_labels", "target_trained")
    kinds = {(LAYER, probe, "residual", 0, 0) for probe in dense} | {(SAE, "reconstruction", "residual", 0, 0)}
    kinds |= {(SAE, probe, "sparse_1", 1, 1) for probe in ("random_features", "random_sae", "target_trained")}
    kinds |= {("text", "text", family, 0, 0) for family in ("tfidf", "length", "overlap")}
    kinds |= {(SAE, "sparse_1", "sparse_1", rank, 1) for rank in (1, 2, 3)}
    kinds |= {(SAE, "sparse_n", "sparse_n", 0, n) for n in (2, 8)} | {(SAE, "shuffled_labels", "sparse_1", 1, 1)}
    chosen_n = (table["probe"] == "pca") | (table["probe"] != "sparse_n") & (table["family"] == "sparse_n")
    assert chosen_n.sum() == 6 * len(TRAINS) * len(TESTS) * len(SIZES)  # pca, other rule, 3 controls, ceiling
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
    scores = project.study.scores(project.study.space(space))
    chosen = (scores["train"] == "passages") & (scores["test"] == "people") & (scores["n_train"] == SIZES[0])
    chosen &= (scores["probe"] == kind) & (scores["rank"] == 2 if options else scores["selected"])
    wanted = scores[chosen].merge(prompts[prompts["split"] == "test"], on="id").head(6)
    file = project.folder.parent / f"{kind}.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in wanted["prompt"]))
    words = ("score", str(file), "--train", "passages", "--space", space, "--probe", kind, *options)
    code, out, error = project.cli(*words, "--json")
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


def test_the_csv_holds_what_the_items_hold(project, table):
    csv, keys = project.study.table("transfer"), [*SCORED, "space"]
    mine = table.sort_values(keys, kind="stable").reset_index(drop=True)
    bootstrapped = ["auc_train_sd", "reason", "layer"]
    csv = csv.sort_values(keys, kind="stable").reset_index(drop=True)
    assert_frame_equal(csv.drop(columns=bootstrapped), mine.drop(columns=bootstrapped), rtol=1e-5, check_dtype=False)


def test_every_column_is_described_and_every_table_read_back(project):
    told = {table["table"]: table for table in json.loads((project.folder / "results/schema.json").read_text())}
    assert told.keys() == TABLES.keys() == {path.stem for path in (project.folder / "results").glob("*.csv")}
    for name, table in told.items():
        assert [column["name"] for column in table["columns"]] == list(project.study.table(name).columns)
        assert all(column["about"] for column in table["columns"])


def test_the_csv_has_the_training_spread_of_every_probe_under_bs_own_template(project):
    csv = pd.read_csv(project.folder / "results/transfer.csv", keep_default_na=False, na_values={"auc_train_sd": [""]})
    own = (csv["test_variation"] == "default") & csv["probe"].isin([name for name, kind in KINDS.items() if kind.refit])
    known = csv["auc_train_sd"].notna()
    spread = pd.read_csv(project.folder / "results/bootstrap.csv", keep_default_na=False, na_values={"auc_sd": [""]})
    short = spread["auc_sd"].isna()
    assert (short <= (spread["resamples"] < 2)).all()
    assert spread.loc[short, "reason"].str.contains("training samples").all()
    assert known[own].mean() > 0.9
    assert (known == ~csv["reason"].str.contains("auc_train_sd")).all()
    assert csv.loc[~own & ~known, "reason"].str.contains("trained once").all()


def test_the_bootstrap_keeps_what_other_analyses_read(project):
    study = project.study
    for train in TRAINS:
        best = study.resamples(study.space(SAE), train).best
        assert len(best) == 4
        assert all(len(np.unique(ids)) == len(ids) and 10 < len(ids) <= 100 for ids in best)
        assert study.resamples(study.space(LAYER), train).residual.shape == (4, 128)


def test_intervals_contain_what_they_are_of(table):
    for value in ("auc", "accuracy", "delta_residual"):
        known = table[table[f"{value}_low"].notna()]
        low, high = known[f"{value}_low"], known[f"{value}_high"]
        assert len(known) > 100
        assert (low <= known[value] + 1e-12).all()
        assert (known[value] <= high + 1e-12).all()
        # At its limits, and at 0.5 for a feature that is silent on B, every resample gives the same.
        inside = ~known["auc"].isin([0.0, 0.5, 1.0]) & ~known[value].isin([0.0, 0.5, 1.0])
        assert inside.sum() > 30
        assert (low < high)[inside].mean() > 0.9


def test_what_is_missing_has_a_reason_and_what_has_a_reason_is_missing(table):
    base = {f"delta_residual_{end}": "delta_residual" for end in ("low", "high", "p")}
    for row in table.to_dict("records"):
        told = {part.split(": ")[0] for part in row["reason"].split("; ")} - {""}
        missing = {key for key, value in row.items() if pd.isna(value)}
        assert {base.get(key, key.removesuffix("_low").removesuffix("_high")) for key in missing} == told


def test_the_saved_scores_give_each_auc_and_accuracy_again(project, table):
    checked = 0
    for space in EVERY_SPACE:
        scores = _scores(project, space)
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
    study = project.study
    for space, train, (test, variation) in product(study.spaces, TRAINS, TESTS):
        at = study.at(test, "test", variation)
        X = study.matrix(space, test)[at]
        X = X if space.is_residual else X.toarray()
        rebuilt = None if space.is_residual else study.reconstruction(space, test, at)
        scores = _scores(project, space.name)
        scores = scores[(scores["train"] == train) & (scores["test"] == test)]
        scores = scores[scores["test_variation"] == variation].set_index(["n_train", "probe", "rank", "n_features"])
        for probe in study.probes(space, train):
            if probe.kind in REPEATED:
                continue
            rows = rebuilt if probe.kind == "reconstruction" else X
            ids = np.arange(rows.shape[1]) if probe.feature_ids is None else probe.feature_ids
            n_features = probe.n_components if probe.feature_ids is None else len(ids)
            saved = scores.loc[(probe.n_train, probe.kind, probe.rank, n_features)]
            assert list(saved["id"]) == list(study.prompts(test)["id"].iloc[at])
            assert list(saved["label"]) == list(study.prompts(test)["label"].iloc[at])
            expected = rows[:, ids].astype(np.float64) @ probe.weights + probe.bias
            np.testing.assert_allclose(saved["score"], expected, rtol=1e-5, atol=1e-5)


def _scores(project, space):
    (found,) = [each for each in project.study.all_spaces if each.name == space]
    return project.study.scores(found)


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
    found = project.study.table("length")
    rows = cells.headline(table[~table["probe"].isin(REPEATED)])
    key = ["space", "train", "test", "probe", "family", "n_features"]
    assert set(found[key].itertuples(index=False, name=None)) == set(rows[key].itertuples(index=False, name=None))
    merged = found.merge(rows, on=key, suffixes=("", "_table"))
    assert len(merged) == len(found) == len(rows)
    for name in ("auc", "auc_low", "auc_high"):
        np.testing.assert_allclose(merged[name], merged[f"{name}_table"], atol=1e-5)
    assert found["stratified_auc"].notna().mean() > 0.9
    low = found["stratified_auc_low"]
    assert ((low <= found["stratified_auc"]) | low.isna()).all()


def test_without_abstaining_words_there_is_no_verbal_judgement(fresh):
    fresh.edit(lambda params: params.update(verbal={"abstaining": []}))
    code, _, error = fresh.stages(*STAGES[:-1])
    assert code == 0, error
    assert set(pd.read_csv("results/transfer.csv")["space"]) == {*SPACES, "text"}


ABOUT = ("inputs.json", ".hashes.json")  # of inputs, which always runs


def test_a_second_run_runs_nothing(fresh):
    def times():
        made = [p for name in MADE for p in (fresh.folder / name).rglob("*") if p.is_file() and p.name not in ABOUT]
        return {p: p.stat().st_mtime_ns for p in made}

    before, lock = times(), (fresh.folder / "dvc.lock").read_bytes()
    said = fresh.dvc("repro")
    assert stages_run(said) == ["inputs", "track"]  # what may have changed unseen, and MLflow might lack something
    assert "0 runs written" in said
    assert times() == before
    assert (fresh.folder / "dvc.lock").read_bytes() == lock


def stages_run(said):
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]


def made_again(project, change, run=Project.stages):
    """The files that the stages write again after a change, from `prepare` on, without DVC's own work."""
    before = {path: path.stat().st_mtime_ns for path in (project.folder / "artifacts").rglob("*.*") if path.is_file()}
    change()
    code, _, error = run(project, *STAGES[:-2])
    assert code == 0, error
    after = {path: path.stat().st_mtime_ns for path in (project.folder / "artifacts").rglob("*.*") if path.is_file()}
    changed = {str(path.relative_to(project.folder / "artifacts")) for path in after if before.get(path) != after[path]}
    return {path for path in changed if not path.endswith(".json")}


def test_one_override_refits_one_item_alone(fresh):
    change = partial(fresh.edit, lambda params: params["probe"].update({SAE: {"people": {"C_grid": [0.1]}}}))
    made = made_again(fresh, change)
    assert {path for path in made if path.startswith("probes/")} == {f"probes/{SAE}/people.safetensors"}
    assert not [path for path in made if path.startswith(("prompts/", "activations/", "features/", "verbal/"))]
    assert {path.split("/")[1] for path in made if path.startswith("transfer/")} == {SAE}
    assert {path.split(".")[0] for path in made if path.startswith("resamples/")} == {f"resamples/{SAE}/people"}


def test_a_third_dataset_computes_its_own_items_alone(fresh):
    def add(params):
        params["study"]["datasets"].insert(1, "snippets")  # in the middle: items have names, not positions
        params["datasets"]["snippets"] = params["datasets"]["people"] | {"path": "data/demo/snippets.jsonl"}

    made = made_again(fresh, partial(fresh.edit, add))
    own = {"prompts/snippets.parquet", "verbal/snippets.parquet", f"activations/{LAYER}/snippets.0.safetensors"}
    own |= {f"features/{SAE}/snippets.safetensors", f"features/{SAE}.directions.safetensors"}
    dear = ("prompts/", "verbal/", "activations/", "features/")
    assert {path for path in made if path.startswith(dear)} == own
    fits = {path for path in made if path.startswith(f"probes/{LAYER}")}
    assert fits == {f"probes/{LAYER}/snippets.safetensors"}
    table = pd.read_csv(fresh.folder / "results/transfer.csv")
    assert set(table["train"]) == {*TRAINS, "snippets"}


def test_a_second_sae_encodes_and_fits_that_sae_alone(fresh):
    def add(params):
        params["saes"]["wide_3"] = {"layer": 3, "path": "models/demo/saes/wide_3"}
        params["study"]["saes"].append("wide_3")

    made = made_again(fresh, partial(fresh.edit, add))
    assert {path.split("/")[1] for path in made if path.startswith(("features/", "probes/"))} <= {
        "wide_3",
        "wide_3.directions.safetensors",
    }
    assert not [path for path in made if path.startswith(("prompts/", "activations/"))]


def test_a_dataset_that_leaves_the_study_takes_its_files_along_and_nothing_else(fresh):
    outside = fresh.folder / "models/demo/saes/narrow_3/sae_weights.safetensors"
    mine = fresh.folder / "artifacts/probes/notes.txt"
    mine.write_text("a person's own")

    def leave(params):
        params["study"]["datasets"] = ["passages"]

    made_again(fresh, partial(fresh.edit, leave))
    left = {str(path.relative_to(fresh.folder)) for path in (fresh.folder / "artifacts").rglob("*people*")}
    assert not left
    assert outside.exists()
    assert mine.read_text() == "a person's own"


def test_other_resamples_train_nothing_again(fresh):
    made = made_again(fresh, partial(fresh.edit, lambda params: params["transfer"].update(resamples=100)))
    assert not [path for path in made if not path.startswith(("transfer/", "analyses/"))]


def test_a_reworded_message_extracts_and_encodes_nothing_again(fresh):
    def reword():
        for name in (
            "model/hub.py",
            "model/extraction.py",
            "cli/study_commands.py",
            "core/errors.py",
            "pipeline/extract.py",
        ):
            path = fresh.folder / "src/sae_transfer" / name
            path.write_text(path.read_text() + "\n# another word\n")

    assert made_again(fresh, reword, Project.command) == set()


def test_an_edited_analysis_computes_that_analysis_alone(fresh):
    def edit():
        path = fresh.folder / "src/sae_transfer/analyses/variations.py"
        path.write_text(path.read_text() + "\n# another word\n")

    made = made_again(fresh, edit, Project.command)
    assert {path.split("/")[1] for path in made} == {"variations"}


FOLDERS = {"prepare": "prompts", "extract": "activations", "judge": "verbal", "encode": "features", "fit": "probes"}
FOLDERS |= {"transfer": "transfer", "resample": "resamples", "analyse": "analyses"}


@pytest.mark.parametrize("stage", FOLDERS)
def test_killed_in_any_stage_and_run_again_gives_the_same_bytes(project, fresh, stage):
    """Some of the stage's items are gone, the process is killed while it makes them, and started again."""
    before = project.hashes("artifacts", "results")
    folder = fresh.folder / "artifacts" / FOLDERS[stage]
    files = sorted(path for path in folder.rglob("*.*") if path.is_file() and path.name != "manifest.json")
    gone = files[: len(files) // 2 + 1]
    for path in gone:
        path.unlink()
    process, _, _ = fresh.started(stage)
    deadline = time.monotonic() + 60
    while not any(path.exists() for path in gone) and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    code, _, error = fresh.stage(stage)
    assert code == 0, error
    assert fresh.hashes("artifacts", "results") == before


def test_dvc_killed_in_the_middle_and_run_again_gives_the_same_bytes(project, fresh):
    before = project.hashes(*MADE)
    shutil.rmtree(fresh.folder / "artifacts/probes")
    running = fresh.start(sys.executable, "-m", "dvc", "repro", start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((fresh.folder / "artifacts/probes").rglob("*.safetensors")):
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    fresh.dvc("repro")
    assert fresh.hashes(*MADE) == before


def test_one_process_and_many_write_the_same_bytes(project, fresh):
    before = project.hashes("artifacts/probes", "artifacts/transfer")
    fresh.edit(lambda params: params.update(jobs=3))
    for name in ("probes", "transfer"):
        shutil.rmtree(fresh.folder / "artifacts" / name)
    code, _, error = fresh.command("fit", "transfer")  # joblib's workers do not start from a copy of a process
    assert code == 0, error
    assert fresh.hashes("artifacts/probes", "artifacts/transfer") == before


def test_layers_extracted_apart_are_those_extracted_together(fresh):
    before = fresh.hashes("artifacts/activations")
    fresh.edit(lambda params: params["model"].update(layers=[2, 3]))
    assert fresh.stage("extract")[0] == 0
    after = fresh.hashes("artifacts/activations")
    assert len(after) == 2 * (len(before) - 1) + 1
    apart = {path: sha for path, sha in after.items() if "layer_2" in path}
    shutil.rmtree(fresh.folder / "artifacts/activations")
    assert fresh.stage("extract")[0] == 0
    together = fresh.hashes("artifacts/activations")
    assert {path: sha for path, sha in together.items() if "layer_2" in path} == apart


def test_a_stored_activation_is_that_of_its_own_prompt(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    study = Study.open()
    prompts = study.prompts("passages")
    rows = np.array([150, 3, 77])  # of both templates and both splits, each prompt alone and in another order
    model, tokenizer = loading.load_model(study.params.model)
    expected = extraction.residual_stream(model, tokenizer, list(prompts["prompt"][rows]), study.params.model)[3]
    stored = study.activations(3, "passages")
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
        for space in Study.open().spaces:
            fit_item(Study.open(), space, "passages")
        return fresh.hashes("artifacts/probes")

    places = [f"artifacts/probes/{space}/passages.safetensors" for space in SPACES]
    before = fresh.hashes("artifacts/probes")
    assert with_other_labels("test") == before
    after = with_other_labels("train")
    assert all(after[path] != before[path] for path in places)


def test_rows_that_two_datasets_share_leave_the_test(fresh):
    """One dataset under two names, in other case and with other spaces: what A was trained on tests nobody."""
    rows = [json.loads(line) for line in (fresh.folder / "data/demo/people.jsonl").read_text().splitlines()]
    twins = [row | {"context": row["context"].upper() + "  ", "question": f" {row['question']}"} for row in rows]
    twins = [row | {"group": f"other {row['group']}"} for row in twins]  # which lie elsewhere in the split
    (fresh.folder / "twin.jsonl").write_text("".join(json.dumps(row) + "\n" for row in twins))

    def add(params):
        params["study"]["datasets"].append("twin")
        params["datasets"]["twin"] = params["datasets"]["people"] | {"path": "twin.jsonl"}

    fresh.edit(add)
    code, said, error = fresh.run("env", "PYTHONPATH=src", "python", "-m", "sae_transfer.cli", "check")
    assert code == 0, error
    assert "stand among people's training rows" in said
    for name in STAGES[:7]:
        code, _, error = fresh.stage(name)
        assert code == 0, error
    study = fresh.study
    trained = {tuple(map(normalised, row)) for row in _contents(study, "people", "train")}
    expected = sum(tuple(map(normalised, row)) in trained for row in _contents(study, "twin", "test"))
    assert expected > 0
    table = pd.read_parquet(fresh.folder / f"artifacts/transfer/{SAE}/people.rows.parquet")
    cell = table[(table["test"] == "twin") & (table["condition"] == "test")]
    assert set(cell["n_overlap"]) == {expected}
    assert set(cell["n_test"]) == {40 - expected}
    assert set(table.loc[table["test"] == "people", "n_overlap"]) == {0}


def _contents(study, dataset, split):
    table = study.prompts(dataset)
    return table.loc[table["split"] == split, ["context", "question"]].itertuples(index=False, name=None)


@pytest.mark.parametrize("names", [["2024", "NA"], ["nan", "a.b"]])
def test_datasets_with_odd_names_go_through(fresh, names):
    def rename(params):
        params["datasets"] = dict(zip(names, params["datasets"].values(), strict=True))
        params["study"]["datasets"] = names

    fresh.edit(rename)
    for stage in STAGES[:-1]:
        code, _, error = fresh.stage(stage)
        assert code == 0, error
    assert set(fresh.study.table("transfer")["train"]) == set(names)


def test_regimes_are_measured_where_params_name_a_training_set(project, fresh):
    off = (project.folder / "results/regimes.csv").read_text()
    assert off.count("\n") == 1
    on = {"datasets": ["people"], "sizes": [30], "imbalance": [], "noise": [0.3], "draws": 2}
    fresh.edit(lambda params: params.update(regimes=on))
    code, _, error = fresh.stage("analyse")
    assert code == 0, error
    found = fresh.study.table("regimes")
    assert ",".join(found.columns) == off.strip()
    points = {("size", 30.0), ("size", 60.0), ("noise", 0.3)}
    assert set(zip(found["regime"], found["value"], strict=True)) == points
    assert len(found) == len(points) * len(TRAINS) * (1 + 4)
    assert set(zip(found["space"], found["layer"], found["sae"], strict=True)) == {(LAYER, 3, ""), (SAE, 3, SAE)}
    assert (found["auc"].notna() | found["reason"].str.contains("too few")).all()
    assert found["auc"].notna().mean() > 0.8


# MLflow


def test_every_cell_is_in_mlflow_with_what_dvc_and_the_features_say(project, table):
    runs = tracked(project.folder, kind="cell")
    rows = cells.headline(table)
    assert len(runs) == len(rows[["space", "train", "test"]].drop_duplicates())
    (parent,) = tracked(project.folder, kind="study", study="workspace")
    assert parent.data.params["probe.top_k"] == "3"
    (run,) = [r for r in runs if r.info.run_name == f"people \N{RIGHTWARDS ARROW} passages \N{MIDDLE DOT} {SAE}"]
    row = rows.query("space == @SAE and key == 'sparse_1' and train == 'people' and test == 'passages'").iloc[0]
    assert run.data.metrics["sparse_1.auc"] == pytest.approx(row["auc"], abs=1e-6)
    assert run.data.tags["sparse_1.features"] == row["feature_ids"]
    place = project.folder / "mlruns/artifacts/sae-transfer"
    listed = json.loads((place / run.info.run_id / "artifacts/sparse_1_features.json").read_text())
    told = pd.DataFrame(listed["data"], columns=listed["columns"])
    study = project.study
    best = next(p for p in study.probes(study.space(SAE), "people") if p.n_train == 60)
    assert told["feature"].iloc[0] == best.feature_ids[0] == int(row["feature_ids"])
    assert (place / parent.info.run_id / "artifacts/figures/means.png").stat().st_size > 1000


# What a person gets wrong. Each gives exit code 2, one line that begins with "error: ", and changes no earlier result.


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
    about = ("manifest.json", "inputs.json")
    kept = {path: sha for path, sha in fresh.hashes(*MADE).items() if not path.endswith(about)}
    assert kept == {path: sha for path, sha in before.items() if path in kept}


def fails(project, stage):
    code, _, error = project.stage(stage)
    return one_line(code, error)


def test_unknown_stage(unchanged):
    assert "did you mean extract" in fails(unchanged, "extrakt")


def test_unknown_dataset_in_the_study(unchanged):
    unchanged.edit(lambda params: params["study"]["datasets"].append("pasages"))
    said = fails(unchanged, "prepare")
    assert "pasages" in said
    assert "did you mean passages?" in said


def test_one_class(unchanged):
    rows = [json.loads(line) for line in (unchanged.folder / "data/demo/people.jsonl").read_text().splitlines()]
    (unchanged.folder / "mine.jsonl").write_text("".join(json.dumps(row | {"label": 1}) + "\n" for row in rows))
    unchanged.edit(lambda params: params["datasets"]["people"].update(path="mine.jsonl"))
    assert unchanged.stage("inputs")[0] == 0
    said = fails(unchanged, "prepare")
    assert "mine.jsonl" in said
    assert "480 answerable and 0 unanswerable" in said


def test_an_sae_that_is_worse_than_the_mean_activation(unchanged):
    path = unchanged.folder / f"models/demo/saes/{SAE}/sae_weights.safetensors"
    weights = safetensors.numpy.load_file(path)
    weights["W_dec"] = -weights["W_dec"]
    path.unlink()  # a link to the file that others use
    safetensors.numpy.save_file(weights, path)
    assert unchanged.stage("inputs")[0] == 0
    said = fails(unchanged, "encode")
    assert re.search(rf"saes\.{SAE}: it explains -\d+\.\d\d of the variance on passages, worse than the mean", said)


def test_layer_beyond_the_model(unchanged):
    unchanged.edit(lambda params: params["model"].update(layers=[3, 17]))
    said = fails(unchanged, "extract")
    assert "layer 17" in said
    assert "model.layers" in said


def test_sae_of_another_layer(unchanged):
    unchanged.edit(lambda params: params["saes"].update(narrow_2={"layer": 3, "path": "models/demo/saes/narrow_2"}))
    unchanged.edit(lambda params: params["study"].update(saes=["narrow_2", SAE]))
    assert unchanged.stage("inputs")[0] == 0
    said = fails(unchanged, "encode")
    assert "saes.narrow_2" in said
    assert "layer 3" in said


def _change_weights(project, change):
    path = project.folder / "models/demo/model/model.safetensors"
    weights = safetensors.numpy.load_file(path)
    key = next(name for name in sorted(weights) if name.endswith("layers.1.mlp.down_proj.weight"))
    change(weights, key)
    path.unlink()
    safetensors.numpy.save_file(weights, path, metadata={"format": "pt"})
    assert project.stage("inputs")[0] == 0
    return key.removeprefix("model.")


def test_weights_with_a_tensor_deleted(unchanged):
    key = _change_weights(unchanged, lambda weights, key: weights.pop(key))
    said = fails(unchanged, "extract")
    assert key in said
    assert "missing" in said


def test_weights_with_nan(unchanged):
    _change_weights(unchanged, lambda weights, key: weights[key].fill(np.nan))
    said = fails(unchanged, "extract")
    assert "row 0: NaN or infinity" in said
    assert "layer 3" in said


def test_a_stage_that_fails_in_dvc_repro_leaves_the_results_of_the_last_run(unchanged):
    unchanged.edit(lambda params: params["datasets"]["people"].update(n_train=6000))
    code, _, error = unchanged.run(sys.executable, "-m", "dvc", "repro")
    assert code != 0
    assert "error: dataset people: n_train needs 3000" in error
