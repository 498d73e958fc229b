"""`dvc repro` under one bar: what is taken from DVC's output, and how a failure is told."""

import pytest

from sae_transfer.core import items
from sae_transfer.core.errors import UserError
from sae_transfer.core.items import Item
from sae_transfer.pipeline.reproduce import follow, reproduce, stages

OUTPUT = """\
'data.dvc' didn't change, skipping
Stage 'inputs' didn't change, skipping
Running stage 'prepare':
> PYTHONPATH=src python -m sae_transfer.pipeline prepare
one line of the stage

Updating lock file 'dvc.lock'

Running stage 'track':
> PYTHONPATH=src python -m sae_transfer.pipeline track
4 runs written
Use `dvc push` to send your updates to remote storage.
"""


def test_only_what_stages_print_is_passed_on():
    told = list(follow(OUTPUT.splitlines(keepends=True)))
    assert told == [
        ("begun", "inputs"),
        ("begun", "prepare"),
        ("said", "one line of the stage"),
        ("said", ""),
        ("begun", "track"),
        ("said", "4 runs written"),
    ]


def test_a_complaint_of_dvcs_is_told_apart():
    told = list(follow(["> python\n", "said\n", "ERROR: it failed.\n", "more\n"]))
    assert told == [("said", "said"), ("complaint", "ERROR: it failed."), ("complaint", "more")]


def write_one(path, content):
    path.write_text(content)
    return [path]


def test_the_share_of_a_stage_that_is_made(tmp_path):
    assert items.share_made(tmp_path) == 0
    wanted = [Item(name, (tmp_path / f"{name}.txt", name)) for name in ("a", "b")]
    items.run(tmp_path, wanted[:1], items.each(write_one), "1")
    assert items.share_made(tmp_path) == 1
    items._write(tmp_path, {"a": items._read(tmp_path)["a"], "b": {}})  # as it is while b is being made
    assert items.share_made(tmp_path) == 0.5


def test_stages_have_the_folders_of_their_items(tmp_path):
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  inputs: {cmd: x, outs: [{artifacts/inputs.json: {persist: true}}]}\n"
        "  fit: {cmd: x, outs: [{artifacts/probes: {persist: true}}]}\n  track: {cmd: x}\n"
    )
    assert stages(tmp_path) == {"inputs": None, "fit": tmp_path / "artifacts/probes", "track": None}


@pytest.fixture
def project(tmp_path):
    def make(command):
        (tmp_path / ".dvc").mkdir()
        (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
        (tmp_path / "dvc.yaml").write_text(f"stages:\n  one:\n    cmd: {command}\n")
        return tmp_path

    return make


def test_a_stage_that_fails_is_named_and_what_it_said_is_shown(project):
    said = []
    with pytest.raises(UserError, match=r"^stage one stopped; mend what it says above"):
        reproduce(project("echo error, the reason; exit 2"), said.append)
    assert "error, the reason" in said


def test_dvcs_own_refusal_is_one_line(project):
    root = project("echo hello")
    (root / "dvc.yaml").write_text("stages:\n  one: 3\n")
    with pytest.raises(UserError, match=r"^DVC: .*dvc\.yaml' validation failed") as raised:
        reproduce(root, print)
    assert "\n" not in str(raised.value)


def test_a_stage_that_works_is_quiet(project):
    said = []
    reproduce(project("echo hello"), said.append)
    assert [line for line in said if line] == ["hello"]
