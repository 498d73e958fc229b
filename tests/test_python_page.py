"""docs/python.md, docs/notebook.ipynb and the examples in docstrings, on the finished small study."""

import doctest
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import notebook_cells as notebook
import sae_transfer
from sae_transfer.pipeline import detector, own_rows, study
from sae_transfer.probing import activating, estimators, probe, ranking, rows

PAGE = (Path(__file__).parents[1] / "docs/python.md").read_text()
MODULES = (study, detector, own_rows, rows, probe, ranking, estimators, activating)


@pytest.fixture
def in_docs(project, tmp_path, monkeypatch):
    """The working directory of the notebook: the folder docs of a project with a finished study."""
    for path in project.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "docs").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "docs")


def test_the_page_runs(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
    assert len(set(names["p"])) > 5
    assert list(names["probe"].probe_.feature_ids) == [7]
    assert list(names["table"].columns) == list(names["study"].table("transfer").columns)
    verdicts = pd.DataFrame(names["detector"](names["prompts"]))
    assert list(verdicts["answerable"]) == [True, False]  # of Ben it is said, of Ida nothing


def test_the_page_names_what_there_is():
    listed = re.search(r"\| you want.*?\n\n", PAGE, re.DOTALL)[0]
    for name in re.findall(r"`(?:study\.)?([A-Za-z_]+)\(", listed):
        assert hasattr(sae_transfer.Study, name) or name in sae_transfer.__all__
    assert set(re.findall(r"^\| `(\w+Probe)\(", PAGE, re.MULTILINE)) == {
        n for n in dir(sae_transfer) if n[-5:] == "Probe"
    } - {"Probe"}


def test_the_notebook_runs(in_docs):
    shown = notebook.run(notebook.cells())
    stored = notebook.outputs()
    assert [set(one) for one in shown] == [set(one) for one in stored]  # as committed: tables and pictures
    assert sum("image/png" in one for one in shown) >= 3
    assert notebook.PATH.stat().st_size < 400_000


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_examples_in_docstrings_hold(module, project):
    known = vars(module) | {"np": np, "study": project.study, "folder": project.folder}
    runner, ran = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS), 0
    said = []
    for test in doctest.DocTestFinder().find(module, globs=known):
        ran += runner.run(test, out=said.append).attempted
    assert not runner.failures, "".join(said)
    assert ran


def test_public_names_are_imported_when_they_are_used():
    for name in sae_transfer.__all__:
        assert getattr(sae_transfer, name)
    with pytest.raises(AttributeError, match="has no attribute 'load'"):
        _ = sae_transfer.load
