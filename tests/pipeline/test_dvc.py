"""What dvc.yaml, versions.yaml and the .dvc files promise."""

import ast
import configparser
import json
from pathlib import Path

import pytest
import yaml

from sae_transfer.core import hashing, paths
from sae_transfer.core.space import Space
from sae_transfer.pipeline import analyse, fit, resample, transfer
from sae_transfer.pipeline.__main__ import VERBS

ROOT = Path(__file__).parents[2]
SRC = "src/sae_transfer"
STORE = ROOT / "dvcstore"
CODE = {"fit": fit.CODE, "transfer": transfer.CODE, "resample": resample.CODE, "analyse": analyse.CODE}
# Code that decides no number: messages, file formats' writing, what a study is read with.
WRITES = ("pipeline/analyse.py", "pipeline/counting.py")  # the rows that they are given
ASIDE = (
    "core/",
    "artifacts/",
    "data/",
    "model/model_params.py",
    "model/verbal.py",
    "pipeline/params.py",
    "pipeline/stage.py",
)
ASIDE += ("tracking/", "tuning/", "analyses/", "results/", "report/", "pipeline/feature_views.py")


def read(path):
    return yaml.safe_load((ROOT / path).read_text())


STAGES = read("dvc.yaml")["stages"]
every_stage = pytest.mark.parametrize("name", STAGES)


def deps_of_code(name):
    return [dep.removeprefix(f"{SRC}/") for dep in STAGES[name].get("deps", []) if dep.startswith(SRC)]


def upstream(name):
    """The stages that make what a stage depends on, and theirs."""
    made = {
        out if isinstance(out, str) else next(iter(out)): other
        for other in STAGES
        for out in STAGES[other].get("outs", [])
    }
    direct = {made[dep] for dep in STAGES[name].get("deps", []) if dep in made}
    return direct.union(*map(upstream, direct))


def test_there_is_a_stage_a_verb_and_the_file_stays_short():
    assert list(STAGES) == VERBS
    assert all(
        stage["cmd"] == f"PYTHONPATH=src python -m sae_transfer.pipeline {name}" for name, stage in STAGES.items()
    )
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 200
    assert len((ROOT / "dvc.lock").read_text().splitlines()) <= 1500


@pytest.mark.parametrize("name", CODE)
def test_dvc_watches_the_code_that_identities_hash(name):
    """A change that an identity sees starts the stage, or one before it whose manifest then changes."""
    watched = {dep for stage in (name, *upstream(name)) for dep in deps_of_code(stage)}
    assert set(CODE[name]) <= watched
    assert all((ROOT / SRC / place).exists() for place in CODE[name])


@pytest.mark.parametrize("name", CODE)
def test_a_stage_watches_all_code_that_decides_its_numbers(name):
    """The imports of the stage's own code stay within what is hashed."""
    hashed = tuple(CODE[name])
    open_, seen = [ROOT / SRC / f"pipeline/{name}.py"], set()
    while open_:
        path = open_.pop()
        place = str(path.relative_to(ROOT / SRC))
        if path in seen or place.startswith(ASIDE):
            continue
        seen.add(path)
        assert place.startswith(hashed) or place in WRITES, place
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sae_transfer"):
                parts = node.module.split(".")[1:]
                for alias in node.names:
                    for tried in ((*parts, alias.name), tuple(parts)):
                        file = (ROOT / SRC).joinpath(*tried).with_suffix(".py")
                        if file.is_file():
                            open_.append(file)
                            break
    assert len(seen) > 3


def test_the_fits_see_labels_that_change_no_prompt():
    assert {"artifacts/prompts", "artifacts/activations", "artifacts/features"} <= set(STAGES["fit"]["deps"])


@pytest.mark.parametrize("name", ["prepare", "extract", "judge", "encode"])
def test_what_costs_gpu_hours_depends_on_a_version_and_no_code(name):
    assert not deps_of_code(name)
    assert {"versions.yaml": [name]} in STAGES[name]["params"]
    assert name in read("versions.yaml")


def test_every_section_of_the_params_belongs_to_a_stage():
    declared = {p.split(".")[0] for stage in STAGES.values() for p in stage["params"] if isinstance(p, str)}
    assert set(read("presets/demo.yaml")) == declared | {"sweep"}  # which `make sweep` reads, and no stage


@every_stage
def test_what_persists_is_a_folder_of_items_and_no_out_lies_where_others_own(name):
    outs = [*STAGES[name].get("outs", []), *STAGES[name].get("plots", [])]
    assert bool(outs) != (name == "track")  # writes into MLflow, every time
    for out in outs:
        path, options = (out, {}) if isinstance(out, str) else next(iter(out.items()))
        assert path.split("/")[0] in ("artifacts", "results", "report")
        # a reader of the page keeps the last one until the next is written
        assert options.get("persist", False) == path.startswith(("artifacts/", "report/index.html"))


def test_metrics_are_among_the_outs_of_a_stage_and_figures_are_plots():
    assert read("dvc.yaml")["metrics"] == ["results/metrics.json"]
    assert "results" in STAGES["analyse"]["outs"]
    assert STAGES["report"]["plots"] == [paths.FIGURES.as_posix()]


def test_a_hash_of_code_sees_every_file_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "PACKAGE", tmp_path)
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats/a.py").write_text("1")
    before = hashing.code("stats")
    assert hashing.code("stats") == before
    (tmp_path / "stats/b.py").write_text("2")
    assert hashing.code("stats") != before


def test_a_space_is_no_string():
    with pytest.raises(AttributeError):
        Space("layer_3", 3).startswith("layer_")
    texts = [path.read_text() for path in (ROOT / SRC).rglob("*.py")]
    assert not any('startswith("layer_' in text or 'removeprefix("layer_' in text for text in texts)


@pytest.mark.parametrize(
    ("file", "paths"), [("data.dvc", ["data/demo", "data/paper"]), ("models.dvc", ["models/demo"])]
)
def test_what_the_repository_ships_comes_from_the_remote_inside_it(file, paths):
    outs = read(file)["outs"]
    assert [out["path"] for out in outs] == paths
    assert {out.get("remote") for out in outs} == {"demo"}


def test_no_remote_is_the_default():
    config = configparser.ConfigParser()
    config.read_string((ROOT / ".dvc/config").read_text().replace("    ", ""))
    assert not config.has_option("core", "remote")
    assert config["'remote \"demo\"'"]["url"] == "../dvcstore"


def unreferenced(store, roots):
    """(files of a DVC remote that no root names, objects that are named and missing)."""
    present = {path.parent.name + path.name: path for path in store.rglob("*") if path.is_file()}
    named = set(roots)
    for root in roots:
        if root.endswith(".dir") and root in present:
            named |= {entry["md5"] for entry in json.loads(present[root].read_text())}
    return present.keys() - named, named - present.keys()


def test_unreferenced_objects_are_seen(tmp_path):
    for name, text in (("ab/1.dir", '[{"md5": "cd2", "relpath": "x"}]'), ("cd/2", ""), ("ef/3", "")):
        path = tmp_path / "files/md5" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert unreferenced(tmp_path, ["ab1.dir"]) == ({"ef3"}, set())
    assert unreferenced(tmp_path, ["ab1.dir", "ef3", "gh4"]) == (set(), {"gh4"})


@pytest.mark.skipif(not STORE.is_dir(), reason="dvcstore is not there: `dvc push -r demo data.dvc models.dvc` makes it")
def test_the_remote_inside_the_repository_holds_what_the_dvc_files_name_and_nothing_else():
    outs = read("data.dvc")["outs"] + read("models.dvc")["outs"]
    assert unreferenced(STORE, [out["md5"] for out in outs]) == (set(), set())
    assert sum(path.stat().st_size for path in STORE.rglob("*")) < 20e6
