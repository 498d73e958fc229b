"""Items are made once, kept while nothing that they are made of changes, and continued after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sae_transfer.core import items
from sae_transfer.core.errors import UserError
from sae_transfer.core.items import Item


def write(path, text):
    """An item's work: counts how often it ran, in a file beside the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parents[1] / "made.log").open("a") as log:
        log.write(f"{path.stem}\n")
    path.write_text(text)
    return [path]


def study(folder, texts, **inputs):
    return [Item(name, (folder / f"{name}.txt", text), {"text": text, **inputs}) for name, text in texts.items()]


def made(folder):
    log = folder.parent / "made.log"
    return log.read_text().split() if log.exists() else []


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "stage"


def run(folder, texts, recipe="1", jobs=1):
    return items.run(folder, study(folder, texts), items.each(write), recipe, jobs=jobs)


TEXTS = {"a": "one", "b": "two", "c": "three"}


def test_items_are_made_once(folder):
    assert run(folder, TEXTS) == ["a", "b", "c"]
    assert run(folder, TEXTS) == []
    assert made(folder) == ["a", "b", "c"]


def test_only_what_changed_is_made_anew(folder):
    run(folder, TEXTS)
    assert run(folder, TEXTS | {"b": "2"}) == ["b"]
    assert (folder / "b.txt").read_text() == "2"
    assert run(folder, TEXTS | {"b": "2", "d": "four"}) == ["d"]


def test_a_stage_without_items_has_run_too(folder):
    with pytest.raises(UserError, match="not found"):
        items.made(folder)
    assert run(folder, {}) == []
    assert items.made(folder) == {}
    run(folder, TEXTS)
    assert run(folder, {}) == []
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def test_another_recipe_makes_everything_anew(folder):
    run(folder, TEXTS)
    assert run(folder, TEXTS, recipe="2") == ["a", "b", "c"]


def test_what_no_item_names_is_removed_and_nothing_else(folder):
    run(folder, TEXTS)
    (folder / "mine.txt").write_text("a person's own")
    run(folder, {"a": "one"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "manifest.json", "mine.txt"]


def test_names_that_begin_alike_do_not_remove_one_another(folder):
    run(folder, {"a": "one", "a.b": "two"})
    run(folder, {"a.b": "two"})
    assert (folder / "a.b.txt").read_text() == "two"
    assert not (folder / "a.txt").exists()


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("other")])
def test_a_damaged_file_is_made_anew(folder, damage):
    run(folder, TEXTS)
    damage(folder / "b.txt")
    assert run(folder, TEXTS) == ["b"]
    assert (folder / "b.txt").read_text() == "two"


def test_a_damaged_manifest_costs_work_and_no_result(folder):
    run(folder, TEXTS)
    before = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(before[: len(before) // 2])
    assert run(folder, TEXTS) == ["a", "b", "c"]
    assert (folder / "manifest.json").read_bytes() == before


def test_processes_write_the_same_bytes_as_one(folder, tmp_path):
    run(folder, TEXTS)
    other = tmp_path / "other" / "stage"
    run(other, TEXTS, jobs=2)
    assert sorted(made(other)) == ["a", "b", "c"]
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}


def fail(path, text):
    if text == "two":
        raise UserError("b cannot be made")
    return write(path, text)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_item_that_fails_says_why_and_what_was_made_stays(folder, jobs):
    with pytest.raises(UserError, match="b cannot be made"):
        items.run(folder, study(folder, TEXTS), items.each(fail), "1", jobs=jobs)
    done = json.loads((folder / "manifest.json").read_text())
    assert done["a"]
    assert not done["b"]
    assert "b" in run(folder, TEXTS)
    assert "a" not in made(folder)[made(folder).index("a") + 1 :]


def test_items_of_a_group_are_made_by_one_call(folder):
    calls = []

    def together(group):
        calls.append([item.name for item in group])
        return {item.name: write(*item.args) for item in group}

    def grouped(texts):
        return [Item(item.name, item.args, item.inputs, group=item.name[0]) for item in study(folder, texts)]

    items.run(folder, grouped({"a1": "x", "a2": "y", "b1": "z"}), together, "1")
    items.run(folder, grouped({"a1": "x", "a2": "y", "a3": "w", "b1": "z"}), together, "1")
    assert calls == [["a1", "a2"], ["b1"], ["a3"]]


def read_other(path, source):
    return write(path, source.read_text().upper())


def both(path, what):
    return read_other(path, what) if isinstance(what, Path) else write(path, what)


def test_a_later_wave_finds_the_files_of_an_earlier_one(folder):
    first = Item("z", (folder / "z.txt", "one"), {"text": "one"})
    then = Item("a", (folder / "a.txt", folder / "z.txt"), {"of": first.identity("1")}, wave=1)
    items.run(folder, [then, first], items.each(both), "1", jobs=2)
    assert (folder / "a.txt").read_text() == "ONE"


KILLED = """
import sys, time
from pathlib import Path
from sae_transfer.core import items
from sae_transfer.core.items import Item
items.KEEP_EVERY = 0.0
folder = Path(sys.argv[1])
def slow(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if text == "three":
        (path.parent / f".{path.name}.half").write_text("half")
        path.write_text("half")
        time.sleep(60)
    path.write_text(text)
    return [path]
texts = {"a": "one", "b": "two", "c": "three"}
items.run(folder, [Item(n, (folder / f"{n}.txt", t), {"text": t}) for n, t in texts.items()], items.each(slow), "1")
"""


def test_killed_and_run_again_goes_on_where_it_was(folder, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)])
    deadline = time.monotonic() + 30
    while not (folder / "c.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run(folder, TEXTS) == ["c"]
    whole = tmp_path / "whole" / "stage"
    run(whole, TEXTS)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in whole.iterdir()}


# What a manifest says is not trusted: it may come from somebody else's remote


def outside(folder):
    """A person's own files, as near as can be: beside the stage's folder, above it, and behind links into it."""
    mine = [folder.parent / "mine/w.txt", folder.parent / "w.txt", folder.parent.parent / "w.txt"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a person's own")
    (folder / "linked").symlink_to(folder.parent / "mine", target_is_directory=True)
    return mine


@pytest.mark.parametrize("entry", ["listed", "unmade"])
@pytest.mark.parametrize(
    "name", ["../w", "../../w", "../mine/w", "linked/w", "linked/../../w", "a/../../w", "ABSOLUTE/w", "linked/../w"]
)
def test_nothing_outside_the_folder_is_removed_whatever_a_manifest_says(folder, name, entry):
    run(folder, {"a": "one"})
    mine = outside(folder)
    name = name.replace("ABSOLUTE", str(folder.parent / "mine"))
    manifest = json.loads((folder / "manifest.json").read_text())
    listed = {"identity": "x", "files": {f"{name}.txt": "0" * 64, f"{folder}/../w.txt": "0" * 64}}
    manifest[name] = listed if entry == "listed" else {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert run(folder, {"a": "one"}) == []
    assert all(path.read_text() == "a person's own" for path in mine)
    assert set(json.loads((folder / "manifest.json").read_text())) == {"a"}


def test_an_out_that_is_a_link_loses_the_link_and_not_what_it_leads_to(folder, tmp_path):
    run(folder, TEXTS)
    target = tmp_path / "large disk" / "b.txt"
    target.parent.mkdir()
    (folder / "b.txt").rename(target)
    (folder / "b.txt").symlink_to(target)
    assert run(folder, {"a": "one", "c": "three"}) == []
    assert target.read_text() == "two"
    assert not (folder / "b.txt").is_symlink()


def test_a_stage_folder_on_another_disk_is_cleaned_as_any_other(folder, tmp_path):
    real = tmp_path / "large disk"
    real.mkdir()
    folder.symlink_to(real, target_is_directory=True)
    run(folder, TEXTS)
    run(folder, {"a": "one"})
    assert sorted(path.name for path in real.iterdir()) == ["a.txt", "manifest.json"]


def test_a_file_of_ones_own_that_begins_like_an_item_stays(folder):
    run(folder, TEXTS)
    (folder / "b.notes.txt").write_text("a person's own")
    run(folder, {"a": "one"})
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.notes.txt", "manifest.json"]


@pytest.mark.parametrize(
    "manifest", ["[1]", '{"a": 5}', '{"a": {"files": 3}}', '{"a": {"files": {"a.txt": 1}}}', '"x"', "[" * 100_000]
)
def test_a_manifest_of_another_shape_is_none(folder, manifest):
    run(folder, TEXTS)
    (folder / "manifest.json").write_text(manifest)
    assert run(folder, TEXTS) == ["a", "b", "c"]
