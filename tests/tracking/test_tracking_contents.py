"""What runs say: pure functions of the study's tables."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import sparse

from sae_transfer.core.errors import UserError
from sae_transfer.model import neuronpedia
from sae_transfer.model.model_params import SaeParams
from sae_transfer.probing.probe import Probe
from sae_transfer.results import cells
from sae_transfer.tracking import contents, origin, tables, view
from tables import table as made_up

DATASETS = ("alpha", "beta")
SAES = {"narrow_2": 2}
NUMBERS = [f"{where}.sparse_1{end}" for where in ("control", "out_of_domain", "in_domain") for end in ("_low", "")]
HASHES = {name: f"{i}" * 32 for i, name in enumerate(DATASETS)}


@pytest.fixture(scope="module")
def table():
    return made_up(DATASETS, SAES, variations={"alpha": ["terse"]})


def cell_runs(table, features=None, origin=None):
    shared = {space: {"seed": "0", "model_hash": "m" * 32} for space in table["space"].unique()}
    return list(contents.cell_runs(table, shared, HASHES, features or {}, origin or {"git_commit": "c"}))


def one(table, space="narrow_2", train="alpha", test="beta", **words):
    wanted = {"space": space, "train": train, "test": test}
    (found,) = [cell for cell in cell_runs(table, **words) if wanted.items() <= cell.params.items()]
    return found


def row_of(table, space, key, train="alpha", test="beta"):
    rows = cells.headline(table)
    here = (rows["space"] == space) & (rows["key"] == key) & (rows["train"] == train) & (rows["test"] == test)
    return rows[here].iloc[0]


def test_every_space_and_pair_is_a_run_and_every_run_another(table):
    found = cell_runs(table)
    places = cells.headline(table)[["space", "train", "test"]].drop_duplicates()
    names = [f"{a} → {b} · {space}" for space, a, b in places.to_numpy()]
    assert sorted(cell.name for cell in found) == sorted(names)
    assert [cell.name for cell in found[:4]] == [
        f"alpha → alpha · {space}" for space in ("narrow_2", "layer_2", "text", "verbal")
    ]
    assert len({cell.fingerprint for cell in found}) == len(found) == 3 * len(DATASETS) ** 2 + len(DATASETS)


def test_a_run_has_the_numbers_of_every_probe_in_it(table):
    cell = one(table)
    own = cells.headline(table).query("space == 'narrow_2' and train == 'alpha' and test == 'beta'")
    assert {"sparse_1", "sparse_n", "target_trained_sparse_1"} < set(own["key"])
    for row in own.to_dict("records"):
        if row["probe"] != "target_trained":
            names = contents.METRICS if row["key"] in ("sparse_1", "sparse_n") else ("auc", "auc_low", "auc_high")
            wanted = {f"{row['key']}.{name}": round(row[name], 6) for name in names if not np.isnan(row[name])}
            assert wanted.items() <= cell.metrics.items()
    for name in ("auc_low", "auc_high", "accuracy", "delta_residual", "delta_residual_low", "delta_residual_high"):
        assert f"sparse_1.{name}" in cell.metrics


def test_what_was_trained_on_b_is_a_ceiling_of_the_probe_and_no_probe_of_the_run(table):
    metrics = one(table).metrics
    assert not [name for name in metrics if name.startswith("target_trained")]
    ceiling = row_of(table, "narrow_2", "target_trained_sparse_1")["auc"]
    assert metrics["sparse_1.ceiling_auc"] == pytest.approx(ceiling, abs=1e-6)
    assert metrics["sparse_1.ceiling_gap"] == pytest.approx(ceiling - metrics["sparse_1.auc"], abs=1e-6)


def test_what_a_reader_compares_with_stands_beside_it(table):
    metrics = one(table).metrics
    assert metrics["residual.auc"] == row_of(table, "layer_2", "residual")["auc"]
    assert metrics["text_tfidf.auc"] == row_of(table, "text", "text_tfidf")["auc"]
    assert metrics["verbal.auc"] == row_of(table, "verbal", "verbal", train="beta")["auc"]  # it trains on nothing
    assert "residual.delta_residual" not in metrics
    assert "mean_difference.auc" not in metrics
    assert "residual.auc" not in one(table, "text").metrics


def test_a_run_says_what_identifies_it(table):
    cell = one(table)
    expected = {"space": "narrow_2", "sae": "narrow_2", "train": "alpha", "test": "beta", "layer": "2", "model": "tiny"}
    expected |= {"in_domain": "false", "n_train": "240", "n_test": "40", "seed": "0", "model_hash": "m" * 32}
    expected |= {"train_hash": "0" * 32, "test_hash": "1" * 32, "train_variation": "default"}
    chosen = row_of(table, "narrow_2", "sparse_n")
    expected |= {"sparse_n.n_features": str(chosen["n_features"]), "sparse_n.C": "1"}
    assert expected.items() <= cell.params.items()
    layer = one(table, "layer_2")
    assert "sae" not in layer.params
    assert "residual.n_features" not in layer.params  # a dense probe
    assert "layer" not in one(table, "text").params


def test_tags_say_where_it_stands_and_which_features_it_reads(table):
    tags = one(table).tags
    assert (tags["domain"], tags["role"], tags["charts"]) == ("OOD", "sae", "yes")
    assert tags["sparse_1.features"] == row_of(table, "narrow_2", "sparse_1")["feature_ids"]
    assert tags["sparse_n.features"] == f" {row_of(table, 'narrow_2', 'sparse_n')['feature_ids']} "
    assert set(tags) == {"domain", "role", "charts", "sparse_1.features", "sparse_n.features"}
    assert one(table, test="alpha").tags["domain"] == "in domain"
    assert "charts" not in one(table, test="alpha").tags
    assert one(table, "layer_2").tags == {"domain": "OOD", "role": "residual"}
    assert one(table, "text").tags["role"] == one(table, "verbal", "beta").tags["role"] == "baseline"


def test_the_size_of_a_run_is_that_of_its_own_probes_and_not_of_the_ceiling(table):
    n_train = table["n_train"].where(table["probe"] != "target_trained", 77)
    assert one(table.assign(n_train=n_train)).params["n_train"] == "240"
    assert one(table, "verbal", "beta").params["n_train"] == "0"


def test_long_lists_of_features_are_cut_at_a_whole_id(table):
    many = " ".join(str(100_000 + i) for i in range(2000))
    listed = one(table.assign(feature_ids=table["feature_ids"].where(table["probe"] != "sparse_n", many)))
    tag = listed.tags["sparse_n.features"]
    assert len(tag) < 8000
    assert set(tag.split()) < set(many.split())


def test_the_other_ranks_sizes_and_templates_are_in_its_table(table):
    listed = json.loads(one(table, test="alpha").tables["all_settings.json"])
    rows = pd.DataFrame(listed["data"], columns=listed["columns"])
    here = table.query("space == 'narrow_2' and train == 'alpha' and test == 'alpha'")
    assert len(rows) == len(here)
    assert listed["columns"][0] == "key"
    single = rows[rows["key"] == "sparse_1"]
    assert set(single["rank"]) == {1, 2}
    assert set(single["test_variation"]) == {"default", "terse"}
    assert single["auc"].tolist() == here.query("probe == 'sparse_1'")["auc"].tolist()
    assert single["auc_train_sd"].isna().all()


def test_features_are_tables_by_kind_of_probe(table):
    features = {("narrow_2", "alpha"): {"sparse_1": pd.DataFrame({"feature": [7], "cv_auc": [np.nan]})}}
    told = one(table, features=features).tables
    assert set(told) == {"sparse_1_features.json", "all_settings.json"}
    assert json.loads(told["sparse_1_features.json"]) == {"columns": ["feature", "cv_auc"], "data": [[7, None]]}
    assert set(one(table, train="beta", features=features).tables) == {"all_settings.json"}


def test_the_fingerprint_is_of_the_content_without_the_commit(table):
    before = one(table).fingerprint
    assert one(table, origin={"git_commit": "d"}).fingerprint == before
    layer = (table["space"] == "layer_2") & (table["probe"] == "mean_difference")
    changed = table.assign(auc=table["auc"] + np.where(layer, 1e-6, 0))
    assert one(changed).fingerprint == before
    assert one(changed, "layer_2").fingerprint != one(table, "layer_2").fingerprint
    rank_2 = (table["space"] == "narrow_2") & (table["rank"] == 2)  # told in its table alone
    assert one(table.assign(auc=table["auc"].where(~rank_2, 0.1))).fingerprint != before
    study = [
        contents.study("s", {"model": {"name": "m"}}, {}, [], {}, {"a.png": data}, {}) for data in (b"1", b"1", b"2")
    ]
    assert study[0].fingerprint == study[1].fingerprint != study[2].fingerprint


def test_the_parent_run_has_the_params_and_a_dozen_numbers_but_no_uri():
    params = {"seed": 0, "model": {"name": "tiny", "layers": [2, 3]}, "tracking": {"uri": "http://me:secret@host"}}
    params |= {"jobs": 4, "sweep": {"trials": 9}, "transfer": {"resamples": 7, "whole": False}}
    numbers = {"out_of_domain.sparse_1": 0.5, "out_of_domain.residual": 0.75}
    run = contents.study(
        "workspace", params, numbers, ["Yes.", "So."], {"saes": pd.DataFrame({"a": [1.5, np.nan]})}, {}, {}
    )
    expected = {"seed": "0", "model.name": "tiny", "model.layers": "[2, 3]", "transfer.whole": "false"}
    assert (run.name, run.params) == ("workspace · tiny", expected)
    assert (run.metrics, run.tags["transfer.resamples"]) == (numbers, "7")
    assert run.tags["mlflow.note.content"] == "Yes.\n\nSo."
    assert json.loads(run.tables["saes.json"]) == {"columns": ["a"], "data": [[1.5], [None]]}


def test_the_parent_shows_one_row_a_probe_and_pair(table):
    shown = contents.transfer_table(table)
    assert set(shown["key"]) == {"residual", "mean_difference", "sparse_1", "sparse_n"}
    assert len(shown) == 4 * len(DATASETS) ** 2
    assert shown.columns[:4].tolist() == ["space", "key", "train", "test"]


def test_a_feature_table_says_what_each_feature_is_and_what_it_is_worth_everywhere(table):
    own = table.query("space == 'narrow_2' and train == 'alpha'")
    ids = [int(own.query(f"rank == {rank}")["feature_ids"].iloc[0]) for rank in (1, 2)]
    chosen = cells.headline(own).query("key == 'sparse_n'").iloc[0]
    together = np.array([int(feature) for feature in chosen["feature_ids"].split()])
    saved = [
        Probe("sparse_1", "sparse_1", np.array([2.0 * i]), -1.0, np.array([f]), n_train=240, feature_cv_auc=1 - 0.1 * i)
        for i, f in enumerate(ids, 1)
    ]
    saved += [Probe("sparse_1", "sparse_1", np.array([9.0]), 9.0, np.array([ids[0]]), n_train=40)]
    saved += [Probe("sparse_n", "sparse_n", np.arange(len(together)) + 5.0, 0.0, together, n_train=240)]
    fires = np.full(64, 120)
    found = tables.feature_tables(
        table,
        lambda space, train: saved,
        lambda sae, train: fires,
        lambda sae, features: {feature: [f"most {feature}", f"less {feature}"] for feature in features},
        lambda sae, feature: f"https://np/{feature}",
    )
    assert set(found) == {("narrow_2", a) for a in DATASETS}
    assert set(found["narrow_2", "alpha"]) == {"sparse_1", "sparse_n"}  # neither controls nor baselines
    single = found["narrow_2", "alpha"]["sparse_1"]
    areas = [f"auc on {name}" for name in DATASETS]
    assert single.columns.tolist() == [*tables.COLUMNS, *areas, "scale", "bias", "link"]
    assert tables.COLUMNS[0] == "feature"
    examples = [[f"most {feature}", f"less {feature}"] for feature in ids]
    assert single[["fires most on", "then on"]].to_numpy().tolist() == examples
    assert single["and on"].isna().all()
    assert single[["feature", "rank", "scale", "bias"]].to_numpy().tolist() == [[ids[0], 1, 2, -1], [ids[1], 2, 4, -1]]
    assert single["cv_auc"].tolist() == [0.9, 0.8]
    assert set(single["density"]) == {0.5}
    assert single["link"].tolist() == [f"https://np/{feature}" for feature in ids]
    for test in DATASETS:
        rows = own.query(f"probe == 'sparse_1' and test == '{test}' and test_variation == 'default'")
        assert single[f"auc on {test}"].tolist() == pytest.approx(rows.sort_values("rank")["auc"].tolist(), abs=1e-6)
    several = found["narrow_2", "alpha"]["sparse_n"]
    assert several["feature"].tolist() == together.tolist()
    assert several["weight"].tolist() == (np.arange(len(together)) + 5.0).tolist()


def test_a_feature_without_a_saved_probe_or_a_page_is_told_all_the_same(table):
    found = tables.feature_tables(table, lambda *_: [], lambda *_: np.full(64, 120), lambda *_: {}, lambda *_: "")
    shown = found["narrow_2", "alpha"]["sparse_n"]
    assert shown["scale"].isna().all()
    assert not {"link", "weight"} & set(shown)


def test_the_prompts_of_a_feature_are_those_on_which_it_fires_most():
    X = sparse.csr_array(np.array([[0, 1.0, 0], [3, 0, 0], [2, 0, 0], [5, 0, 0], [1, 4, 0]]))
    assert tables.most_active(X, list("abcde"), [0, 1, 2]) == {0: ["d", "b", "c"], 1: ["e", "a"], 2: []}
    long = tables.as_text("people", 0, "How old\nis Ann?", "Passage: " + "x " * 200 + "How old\nis Ann?")
    assert long.startswith("How old is Ann? (people, unanswerable) […] ")
    assert long.endswith("How old is Ann?")
    assert len(long) < 250
    assert tables.as_text("sums", 1, "", "1 + 1") == "(sums, answerable) 1 + 1"


def test_the_lock_file_says_which_stage_wrote_what(tmp_path):
    stage = {"cmd": "x", "deps": [{"path": "data/a.jsonl", "md5": "1"}], "outs": [{"path": "results/a", "md5": "2"}]}
    path = tmp_path / "dvc.lock"
    path.write_text(yaml.safe_dump({"schema": "2.0", "stages": {"transfer@a": stage}}))
    lock = origin.read_lock(path)
    assert (lock.md5("data/a.jsonl"), lock.md5("results/a")) == ("1", "2")
    assert lock.md5("data/b.jsonl") == origin.UNKNOWN
    assert lock.maker("results/a") == {"dvc_stage": "transfer@a", "dvc_stage_md5": contents.digest(stage)}
    assert lock.maker("results/b") == origin.read_lock(tmp_path / "none").maker("results/a") == {}
    path.write_text("stages: [")
    with pytest.raises(UserError, match=r"dvc\.lock: damaged"):
        origin.read_lock(path)


def test_links_to_neuronpedia(tmp_path):
    release = SaeParams(layer=20, release="gemma-scope-9b-it-res-canonical", id="layer_20/width_131k/canonical")
    assert neuronpedia.id_of(release) == "gemma-2-9b-it/20-gemmascope-res-131k"
    assert neuronpedia.id_of(SaeParams(layer=2, release="no-such-release", id="x")) == ""
    folder = tmp_path / "sae"
    folder.mkdir()
    assert neuronpedia.id_of(SaeParams(layer=2, path=folder)) == ""
    (folder / "cfg.json").write_text(json.dumps({"metadata": {"neuronpedia_id": "m/2-res"}}))
    assert neuronpedia.id_of(SaeParams(layer=2, path=folder)) == "m/2-res"
    assert neuronpedia.link("m/2-res", 7) == "https://www.neuronpedia.org/m/2-res/7"
    assert neuronpedia.link("", 7) == ""


def test_the_views_name_columns_and_charts_that_runs_have_and_fit_the_screen(table):
    cell = one(table)
    for column in view.CELLS:
        kind, name = column.split(".", 1)
        known = {"params": cell.params, "metrics": cell.metrics, "tags": cell.tags}[kind]
        assert name.strip("`") in known, column
    assert {name for axes in view.CHARTS for name in axes} <= set(cell.metrics)
    assert max(sum(columns.values()) for columns in (view.CELLS, view.SWEEPS)) <= view.ROOM


def test_a_view_shows_the_study_that_is_told_and_its_pictures(table):
    pages = {"figures/a.png": b"1", **view.picture("narrow_2 sparse_1", b"1")}
    parent = contents.study("newt", {"model": {"name": "m"}}, {"x": 1.0}, [], {}, pages, {})
    shipped = view.tags("newt", parent, cell_runs(table))
    states = {name: json.loads(json.loads(text)["state"]) for name, text in shipped.items() if "View" in name}
    for name in (view.TABLE_VIEW, view.CHARTS_VIEW):
        assert 'tags.study = "newt"' in states[f"mlflow.sharedViewState.{name}"]["searchFilter"]
    charts = states["mlflow.sharedViewState.charts"]["compareRunCharts"]
    assert [card["imageKeys"] for card in charts if card["type"] == "IMAGE"] == [["narrow_2 sparse_1"]]
    many = contents.study("newt", {"model": {"name": "m"}}, dict.fromkeys(NUMBERS, 1.0), [], {}, {}, {})
    (text,) = [text for name, text in view.tags("newt", many, []).items() if name.endswith("studies")]
    shown = json.loads(json.loads(text)["state"])["selectedColumns"]
    assert shown[0] == "metrics.`out_of_domain.sparse_1`"  # the bounds come later
    assert 3 < len(shown) < len(NUMBERS)
    streams = view.tags("newt", parent, cell_runs(table[table["sae"] == ""]))
    (state,) = [json.loads(json.loads(text)["state"]) for name, text in streams.items() if view.TABLE_VIEW in name]
    assert 'tags.role = "residual"' in state["searchFilter"]


def test_importing_tracking_does_not_import_mlflow():
    code = "import sys; from sae_transfer.tracking import projection, server, sweeps; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
