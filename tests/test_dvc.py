"""What dvc.yaml and the .dvc files promise. DVC does not follow imports: a forgotten dep means stale results."""

import ast
import configparser
import json
import re
from itertools import accumulate
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = "src/sae_transfer"
STUDY = {"cells", "figures", "metrics", "probe_files", "probes", "prompts", "report", "search", "splits", "transfer"}
STORE = ROOT / "dvcstore"


def read(path):
    return yaml.safe_load((ROOT / path).read_text())


STAGES = {name: stage.get("do", stage) for name, stage in read("dvc.yaml")["stages"].items()}
every_stage = pytest.mark.parametrize("name", STAGES)


def entry(stage):
    """The module that a stage's command runs."""
    return re.search(r"python -m (sae_transfer[.\w]+)", stage["cmd"])[1]


def closure(module, src=ROOT / "src"):
    """Files under `src` that running a module can import (inside functions too), or that it names as package data."""
    package = src / module.split(".")[0]
    data = {path.name: path for path in package.rglob("*") if path.suffix in (".html", ".tsv")}
    found, open_ = set(), [module]
    while open_:
        for name in accumulate(open_.pop().split("."), "{}.{}".format):
            path = _file(name, src)
            if path is None or path in found:
                continue
            found.add(path)
            tree = ast.parse(path.read_text())
            open_ += _imports(tree, package.name)
            texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            found |= {data[name] for name in texts & data.keys()}
    return {path.relative_to(src.parent).as_posix() for path in found}


def _file(name, src):
    path = src.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _imports(tree, package):
    """Dotted names; of `from a import b` both a and a.b, since b may be a module or a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not followed"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.split(".")[0] == package)


def test_closure_follows_every_way_to_import_and_nothing_else(tmp_path):
    files = {
        "pkg/__init__.py": "",
        "pkg/a.py": "import os\nfrom pkg import b\n\ndef f():\n    from pkg.sub.c import g\n    import pkg.d\n",
        "pkg/b.py": "TEMPLATE = 'page.html'\n",
        "pkg/d.py": "from pkg import a\n",  # a cycle
        "pkg/page.html": "",
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
    assert closure("pkg.b", tmp_path / "src") == {"src/pkg/__init__.py", "src/pkg/b.py", "src/pkg/page.html"}


@every_stage
def test_code_deps_equal_the_import_closure(name):
    deps = [dep for dep in STAGES[name]["deps"] if dep.startswith(f"{PACKAGE}/")]
    assert len(deps) == len(set(deps))
    assert set(deps) == closure(entry(STAGES[name]))


@pytest.mark.parametrize("name", ["extract", "encode"])
def test_what_costs_gpu_hours_depends_on_no_module_of_the_study(name):
    parts = {part for path in closure(entry(STAGES[name])) for part in Path(path).with_suffix("").parts}
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
    own = sections_read("src/" + entry(STAGES[name]).replace(".", "/") + ".py")
    assert own
    assert own <= declared
    assert declared <= own | sections_read(f"{PACKAGE}/stages/inputs.py")


def test_every_section_of_the_params_belongs_to_a_stage():
    declared = {param.split(".")[0] for stage in STAGES.values() for param in stage["params"]}
    assert set(read("params.yaml")) == declared


@every_stage
def test_a_stage_runs_the_code_beside_it(name):
    assert STAGES[name]["cmd"].startswith("PYTHONPATH=src python -m ")


@every_stage
def test_no_out_lies_where_dvc_would_delete_what_others_own(name):
    outs = [*STAGES[name].get("outs", []), *STAGES[name].get("metrics", []), *STAGES[name].get("plots", [])]
    assert outs
    owners = {out.split("/")[0] for out in outs}
    assert owners <= {"artifacts", "results", "report"}


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
