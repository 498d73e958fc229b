"""What DVC really keeps of the inputs: its index is asked, in a project with git and DVC as it ships."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sae_transfer.pipeline import versioning

ROOT = Path(__file__).parents[2]
MINE = Path("data/external/mine.jsonl")
LOST = "`dvc push`, clones and `dvc exp run --temp` lack it"
PATTERN = "/data/external/*\n!/data/external/*.dvc\n"  # with which .dvc files lie there, and DVC passes over them


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc"))
    for who in ("AUTHOR", "COMMITTER"):
        for what in ("NAME", "EMAIL"):
            monkeypatch.setenv(f"GIT_{who}_{what}", "t@t")
    monkeypatch.chdir(folder)
    git("init", "--quiet")
    write(MINE, "{}\n")
    return folder


def git(*words):
    subprocess.run(["git", *words], check=True, capture_output=True)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_input_that_nothing_keeps_is_told_with_what_keeps_it(project):
    assert versioning.unkept([MINE]) == [f"{MINE} is in neither DVC nor git: {LOST}; run `dvc add {MINE}`"]
    versioning.track(MINE)
    assert versioning.unkept([MINE]) == [f"{MINE}.dvc is not in git: clones and experiments lack {MINE}; `git add` it"]
    git("add", ".")
    assert versioning.unkept([MINE, Path("nowhere")]) == []
    kept = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    assert f"{MINE}.dvc\n" in kept
    assert f"{MINE}\n" not in kept


def test_git_keeps_small_files_as_well(project):
    git("add", str(MINE))
    assert versioning.unkept([MINE, MINE.parent]) == []
    write(MINE.with_name("b.jsonl"), "{}")
    assert versioning.unkept([MINE.parent])[0].startswith("data/external is in neither DVC nor git")


def test_a_dvc_file_that_git_hides_is_in_no_index(project):
    write(Path(".gitignore"), PATTERN)
    versioning.track(MINE)
    git("add", ".")
    said = f"{MINE} is hidden from DVC, since git ignores the folder of {MINE}.dvc: {LOST}; correct .gitignore"
    assert versioning.unkept([MINE]) == [said]


def test_what_changed_since_it_was_added_is_told(project):
    folder = MINE.with_name("two")
    for name in "ab":
        write(folder / f"{name}.jsonl", "{}")
    versioning.track(folder)
    git("add", ".")
    assert versioning.unkept([folder / "a.jsonl", folder / "b.jsonl"]) == []
    write(folder / "a.jsonl", "{} {}")
    said = "data/external/two has changed since `dvc add`: others get the old one; `dvc add` it again"
    assert versioning.unkept([folder / "a.jsonl", folder / "b.jsonl"]) == [said]


def test_what_lies_elsewhere_is_kept_by_nobody(project, tmp_path):
    write(tmp_path / "sae/cfg.json", "{}")
    for path in (tmp_path / "sae", Path("../sae")):
        assert versioning.unkept([path]) == [
            f"{path} lies outside the project: a change of it is seen, but DVC does not keep it for others"
        ]


def test_outside_of_dvc_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(MINE, "{}")
    assert versioning.unkept([MINE]) == []


def dvc(*words):
    """DVC as a person runs it."""
    subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)


def test_a_dataset_that_is_added_reaches_clones_and_experiments(project, tmp_path, monkeypatch):
    from dvc.repo import Repo

    versioning.track(MINE)
    write(Path("dvc.yaml"), f"stages:\n  copy:\n    cmd: cp {MINE} copied\n    params: [n]\n    outs: [copied]\n")
    write(Path("params.yaml"), "n: 1\n")
    with Repo() as repo, repo.config.edit() as config:
        config["remote"]["mine"] = {"url": str(tmp_path / "remote")}
        config["core"]["remote"] = "mine"
    git("add", ".")
    git("commit", "--quiet", "-m", "m")
    dvc("push")
    dvc("exp", "run", "--temp", "-S", "n=2")
    git("clone", "--quiet", ".", str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    dvc("pull", str(MINE))
    assert MINE.read_text() == "{}\n"
