"""What dvc.yaml and the .dvc files promise. DVC does not follow imports: a forgotten dep means stale results."""

import ast
import configparser
import json
from pathlib import Path

import pytest
import yaml

from closure import PACKAGE, ROOT, closure, entry, with_closures

STUDY = {"cells", "figures", "metrics", "probe_files", "probes", "prompts", "report", "search", "splits", "transfer"}
STUDY |= {"regimes", "resampling", "stability", "tuning"}
STORE = ROOT / "dvcstore"


def read(path):
    return yaml.safe_load((ROOT / path).read_text())


STAGES = {name: stage.get("do", stage) for name, stage in read("dvc.yaml")["stages"].items()}
every_stage = pytest.mark.parametrize("name", STAGES)


def test_closure_follows_every_way_to_import_and_nothing_else(tmp_path):
    files = {
        "pkg/__init__.py": "",
        "pkg/a.py": "import os\nfrom pkg import b\n\ndef f():\n    from pkg.sub.c import g\n    import pkg.d\n",
        "pkg/b.py": "TEMPLATE = 'page.html'\n",
        "pkg/d.py": "from pkg import a\n",  # a cycle
        "pkg/page.html": '{% include "part.html" %}',
        "pkg/part.html": "",
        "pkg/other.html": "",
        "pkg/sub/__init__.py": "from pkg.sub.e import h\n",
        "pkg/sub/c.py": "",
        "pkg/sub/e.py": "",
        "pkg/unused.py": "from pkg import a\n",
    }
    for name, text in files.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = closure("pkg.a", tmp_path / "src")
    assert found == {f"src/{name}" for name in files.keys() - {"pkg/unused.py", "pkg/other.html"}}
    assert closure("pkg.unused", tmp_path / "src") - found == {"src/pkg/unused.py"}
    page = {f"src/pkg/{part}.html" for part in ("page", "part")}
    assert closure("pkg.b", tmp_path / "src") == {"src/pkg/__init__.py", "src/pkg/b.py"} | page


@every_stage
def test_code_deps_equal_the_import_closure(name):
    deps = [dep for dep in STAGES[name]["deps"] if dep.startswith(f"{PACKAGE}/")]
    assert len(deps) == len(set(deps))
    assert set(deps) == closure(entry(STAGES[name]["cmd"]))


def test_rewriting_the_code_deps_changes_nothing_where_they_are_right_and_mends_them_where_not():
    right = (ROOT / "dvc.yaml").read_text()
    assert with_closures(right) == right
    module = f"- {PACKAGE}/records.py\n"
    assert right.count(module) > len(STAGES) // 2
    wrong = "".join(line for line in right.splitlines(keepends=True) if not line.endswith(module))
    assert with_closures(wrong) == right


@pytest.mark.parametrize("name", ["extract", "encode"])
def test_what_costs_gpu_hours_depends_on_no_module_of_the_study(name):
    parts = {part for path in closure(entry(STAGES[name]["cmd"])) for part in Path(path).with_suffix("").parts}
    assert STUDY & parts == set()


def test_the_modules_of_the_study_exist():
    assert {path.stem for path in (ROOT / PACKAGE).iterdir()} >= STUDY


def sections_read(path):
    """Names of sections that a file takes from the params: `params["x"]`, and the first word of `config.section`."""
    tree, found = ast.parse((ROOT / path).read_text()), set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Subscript)
            and ast.unparse(node.value) == "params"
            and isinstance(node.slice, ast.Constant)
        ):
            found.add(node.slice.value)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "config.section":
            found.add(ast.literal_eval(node.args[2]))
    return found


@every_stage
def test_a_stage_declares_the_params_that_it_reads(name):
    declared = {param.split(".")[0] for param in STAGES[name]["params"]}
    own = sections_read("src/" + entry(STAGES[name]["cmd"]).replace(".", "/") + ".py")
    assert own
    assert own <= declared
    shared = [path for path in closure(entry(STAGES[name]["cmd"])) if path.startswith(f"{PACKAGE}/stages/")]
    assert declared <= own.union(*map(sections_read, shared))


def test_every_section_of_the_params_belongs_to_a_stage():
    declared = {param.split(".")[0] for stage in STAGES.values() for param in stage["params"]}
    assert set(read("params.yaml")) == declared | {"sweep"}  # which `make sweep` reads, and no stage


@every_stage
def test_a_stage_runs_the_code_beside_it(name):
    assert STAGES[name]["cmd"].startswith("PYTHONPATH=src python -m ")


@every_stage
def test_no_out_lies_where_dvc_would_delete_what_others_own(name):
    outs = [*STAGES[name].get("outs", []), *STAGES[name].get("metrics", []), *STAGES[name].get("plots", [])]
    assert bool(outs) != STAGES[name].get("always_changed", False)  # `track` writes into MLflow, every time
    owners = {out.split("/")[0] for out in outs}
    assert owners <= {"artifacts", "results", "report"}


def test_every_plot_is_among_the_outs_of_a_stage():
    outs = [out for stage in STAGES.values() for out in stage.get("outs", [])]
    assert read("dvc.yaml")["plots"]
    for plot in read("dvc.yaml")["plots"]:
        assert plot.endswith(".png")  # shown without the network, unlike DVC's own
        assert any(Path(plot).is_relative_to(out) for out in outs), plot


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
