"""What runs say and which of them a store needs: pure functions."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from sae_transfer import cells, neuronpedia, result_files
from sae_transfer.features import SaeParams
from sae_transfer.probes import Probe
from sae_transfer.records import UserError
from sae_transfer.tracking import contents, origin, tables, view
from sae_transfer.tracking.plan import Found, upsert
from tables import table as made_up

DATASETS = ("alpha", "beta")
SAES = {"narrow_2": 2}
MD5S = {name: (f"{i}" * 32, f"data/{name}.jsonl") for i, name in enumerate(DATASETS)}


@pytest.fixture(scope="module")
def table():
    return made_up(DATASETS, SAES, variations={"alpha": ["terse"]})


def families(table, features=None, origins=None):
    spaces = table["space"].unique()
    shared = {space: {"seed": "0", "model_md5": "m" * 32} for space in spaces}
    origins = origins or {space: {"git_commit": "c"} for space in spaces}
    return list(contents.families(table, shared, MD5S, features or {}, origins))


def one(table, space="narrow_2", probe="sparse_1", train="alpha", test="beta", **words):
    found = [cell for family in families(table, **words) for cell in family.cells]
    wanted = {"space": space, "probe": probe, "train": train, "test": test}
    return next(cell for cell in found if wanted.items() <= cell.params.items())


def test_every_cell_is_a_run_and_every_run_another(table):
    found = families(table)
    rows = cells.headline(table)
    assert sum(len(family.cells) for family in found) == len(rows)
    fingerprints = {cell.fingerprint for family in found for cell in family.cells}
    assert len(fingerprints) == len(rows)
    assert {family.params["probe"] for family in found} == set(rows["key"])
    one_each = {"verbal": 1}  # the model's own words train on nothing, so they stand at A = B alone
    assert all(len(family.cells) == one_each.get(family.params["space"], len(DATASETS)) for family in found)


def test_a_run_says_what_identifies_it_and_every_number_of_its_row(table):
    cell = one(table)
    row = cells.headline(table).query("space == 'narrow_2' and key == 'sparse_1' and train == 'alpha'").iloc[1]
    expected = {"train": "alpha", "test": "beta", "layer": "2", "sae": "narrow_2", "C": "1", "n_features": "1"}
    assert (expected | {"seed": "0", "n_train": "240", "n_test": "40", "model": "tiny"}).items() <= cell.params.items()
    numbers = [c for c in table.columns[list(table.columns).index("auc") :] if c != "reason" and not np.isnan(row[c])]
    assert cell.metrics == {name: row[name] for name in numbers}
    assert "auc_train_sd" not in cell.metrics  # missing: not logged, told in the tag `reason`
    assert "auc_train_sd" in cell.tags["reason"]
    assert cell.tags["domain"] == "OOD"
    assert cell.tags["role"] == "probe"
    assert cell.tags["top_features"] == row["feature_ids"]
    assert [(d.name, d.digest, d.context) for d in cell.datasets] == [
        ("alpha", "0" * 32, "train"),
        ("beta", "1" * 32, "test"),
    ]


def test_a_cell_in_domain_has_one_input_and_a_control_says_that_it_is_one(table):
    assert [d.context for d in one(table, test="alpha").datasets] == ["train and test"]
    assert one(table, test="alpha").tags["domain"] == "in domain"
    assert one(table, probe="shuffled_labels_sparse_1").tags["role"] == "control"


def test_baselines_say_that_they_are_and_what_they_read(table):
    roles = {family.params["probe"]: {cell.tags["role"] for cell in family.cells} for family in families(table)}
    assert {kind for kind, role in roles.items() if role == {"probe"}} == {
        *("residual", "mean_difference", "sparse_1", "sparse_n")
    }
    assert roles["shuffled_labels_sparse_n"] == {"control"}
    assert roles["random_features_sparse_n"] == roles["target_trained_residual"] == roles["text_tfidf"] == {"baseline"}
    ceiling = one(table, probe="target_trained_sparse_1")
    assert ceiling.params["uses_target"] == "true"
    assert [(d.name, d.context) for d in ceiling.datasets] == [("beta", "train and test")]  # never A
    verbal = one(table, "verbal", "verbal", "beta")
    assert verbal.params["n_train"] == "0"
    assert [(d.name, d.context) for d in verbal.datasets] == [("beta", "test")]


def test_a_model_has_the_params_that_all_of_its_cells_share(table):
    changed = table.copy()
    changed.loc[(changed["probe"] == "target_trained") & (changed["test"] == "beta"), "C"] = 7.0
    family = next(f for f in families(changed) if f.name == "narrow_2_target_trained_sparse_1_alpha")
    assert {cell.params["C"] for cell in family.cells} == {"1", "7"}
    assert {"C", "test", "n_test", "n_groups"}.isdisjoint(family.params)
    assert (family.params["train"], family.params["n_train"]) == ("alpha", "240")


def test_the_other_ranks_sizes_and_templates_are_in_its_table(table):
    listed = json.loads(one(table, test="alpha").tables["all_settings.json"])
    rows = pd.DataFrame(listed["data"], columns=listed["columns"])
    here = table.query("space == 'narrow_2' and probe == 'sparse_1' and train == 'alpha' and test == 'alpha'")
    assert set(rows["rank"]) == {1, 2}
    assert set(rows["test_variation"]) == {"default", "terse"}
    assert rows["auc"].tolist() == here["auc"].tolist()
    assert rows["auc_train_sd"].isna().all()


def test_the_fingerprint_is_of_the_content_without_the_commit(table):
    before = one(table).fingerprint
    assert one(table, origins={space: {"git_commit": "d"} for space in table["space"].unique()}).fingerprint == before
    changed = table.copy()
    changed["auc"] = changed["auc"] + np.where(changed["space"] == "layer_2", 1e-6, 0)
    assert one(changed).fingerprint == before
    assert one(changed, "layer_2", "residual").fingerprint != one(table, "layer_2", "residual").fingerprint
    rank_2 = (table["space"] == "narrow_2") & (table["rank"] == 2)  # told in its table alone
    assert one(table.assign(auc=table["auc"].where(~rank_2, 0.1))).fingerprint != before


def test_kinds_that_are_not_known_here_and_rows_without_a_layer_are_runs_too(table):
    rows = cells.headline(table).query("key == 'residual' and space == 'layer_2'").drop(columns="key")
    text = rows.assign(space="text", probe="tf_idf", family="text", layer=np.nan, C=np.nan, delta_residual=np.nan)
    cell = one(pd.concat([table, text], ignore_index=True), "text", "tf_idf")
    assert "layer" not in cell.params
    assert "C" not in cell.params
    assert "delta_residual" not in cell.metrics
    assert cell.params["family"] == "text"


def test_the_parent_run_has_the_params_and_the_headline_numbers_but_no_uri():
    params = {"seed": 0, "model": {"name": "tiny", "layers": [2, 3]}, "tracking": {"uri": "http://me:secret@host"}}
    numbers = {"narrow_2": {"sparse_1": {"auc_ood": 0.5, "auc_ood_worst": None}}, "gap": 0.25}
    run = contents.study("workspace", params, numbers, {"saes": pd.DataFrame({"a": [1.5, np.nan]})}, "f", {})
    assert run.params == {"seed": "0", "model.name": "tiny", "model.layers": "[2, 3]"}
    assert run.metrics == {"narrow_2/sparse_1/auc_ood": 0.5, "gap": 0.25}
    assert json.loads(run.tables["saes.json"]) == {"columns": ["a"], "data": [[1.5], [None]]}


def test_a_feature_table_says_what_each_feature_is_and_what_it_is_worth_everywhere(table):
    own = table.query("space == 'narrow_2' and train == 'alpha'")
    ids = [int(own.query(f"rank == {rank}")["feature_ids"].iloc[0]) for rank in (1, 2)]
    chosen = cells.headline(own).query("key == 'sparse_n'").iloc[0]
    together = np.array([int(feature) for feature in chosen["feature_ids"].split()])
    saved = [
        Probe("sparse_1", "sparse_1", np.array([2.0 * i]), -1.0, np.array([feature]), rank=i, n_train=240)
        for i, feature in enumerate(ids, 1)
    ]
    saved += [Probe("sparse_1", "sparse_1", np.array([9.0]), 9.0, np.array([ids[0]]), rank=1, n_train=40)]
    saved += [Probe("sparse_n", "sparse_n", np.arange(len(together)) + 5.0, 0.0, together, n_train=240)]
    fires = np.full(64, 120)
    found = tables.feature_tables(
        table, lambda space, train: saved, lambda sae, train: fires, lambda sae, feature: f"https://np/{feature}"
    )
    assert set(found) == {("narrow_2", a, key) for a in DATASETS for key in ("sparse_1", "sparse_n")}  # no controls
    single = found["narrow_2", "alpha", "sparse_1"]
    assert single.columns[:6].tolist() == list(tables.FEATURE_COLUMNS)
    assert single[["feature", "rank", "scale", "bias"]].to_numpy().tolist() == [[ids[0], 1, 2, -1], [ids[1], 2, 4, -1]]
    assert set(single["density"]) == {0.5}
    assert single["link"].tolist() == [f"https://np/{feature}" for feature in ids]
    for test in DATASETS:
        rows = own.query(f"probe == 'sparse_1' and test == '{test}' and test_variation == 'default'")
        assert single[f"auc on {test}"].tolist() == rows.sort_values("rank")["auc"].tolist()
    several = found["narrow_2", "alpha", "sparse_n"]
    assert several["feature"].tolist() == together.tolist()
    assert several["weight"].tolist() == (np.arange(len(together)) + 5.0).tolist()


def test_what_a_store_needs():
    found = [
        Found("kept", "a", True, False, "p"),
        Found("again", "b", True, True, "p"),
        Found("twice", "a", True, False, "p"),
        Found("moved", "c", True, False, "old"),
        Found("stale", "x", True, False, "p"),
        Found("stale already", "y", True, True, "p"),
        Found("cut off", "d", False, False, "p"),
    ]
    plan = upsert(["a", "b", "c", "d"], found, "p")
    assert plan.delete == ["cut off"]
    assert plan.kept == {"a": "kept", "b": "again", "c": "moved"}
    assert plan.create == ["d"]
    assert plan.revive == ["again"]
    assert plan.adopt == ["moved"]
    assert plan.supersede == ["twice", "stale"]
    assert upsert(["a"], [], "p").create == ["a"]


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


def test_the_transfer_table_is_read_as_it_was_written(table, tmp_path):
    path = tmp_path / "transfer.csv"
    table.to_csv(path, index=False)
    read = result_files.read_transfer(path)
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert read["sae"].iloc[0] == ""
    assert read["in_domain"].dtype == bool


def test_results_of_another_version_are_refused(table, tmp_path):
    path = tmp_path / "transfer.csv"
    table.drop(columns=["auc_low", "reason"]).to_csv(path, index=False)
    with pytest.raises(
        UserError, match=r"transfer\.csv: the transfer table lacks auc_low, reason: another version wrote it"
    ):
        result_files.read_transfer(path)
    path.write_bytes(b'"\xff')
    with pytest.raises(UserError, match=r"transfer\.csv: damaged"):
        result_files.read_transfer(path)
    for wrong in ([1], {"layer_2": {"residual": {"auc": "high"}}}):
        with pytest.raises(UserError, match="another version wrote it"):
            tables.check_numbers(wrong, path)
    tables.check_numbers({"layer_2": {"residual": {"auc": None, "n": 2}}, "gap": 0.5}, path)


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


def test_the_view_names_columns_that_runs_have(table):
    cell = one(table)
    for column in view.COLUMNS:
        kind, name = column.split(".", 1)
        known = {"params": cell.params, "metrics": cell.metrics, "tags": {*cell.tags, "study"}}[kind]
        assert name.strip("`") in known, column
