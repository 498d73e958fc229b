"""The finished study that several files test. It is made once, whatever the number of pytest's processes."""

import os

import pytest
from filelock import FileLock

import project as projects

# Files start in this order, each in the next of pytest's processes that is free. One process makes the finished study
# for the first file while the other tests what needs none; no long file is left for the end.
FIRST = ("test_end_to_end", "test_browser", "test_tracking", "test_tuning", "test_workspaces")


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """The demo, small, after `dvc repro`. No test changes it: those that change something take a `fresh` copy."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(base / "study.lock"):
        if not (base / "study/finished").exists():
            projects.finished(base / "study/project")
            (base / "study/finished").touch()
    return projects.Project(base / "study/project")


@pytest.fixture
def fresh(project, tmp_path, monkeypatch):
    """A copy of the finished project to disturb; the test runs in it."""
    copy = project.copy(tmp_path / "project")
    monkeypatch.chdir(copy.folder)
    return copy
