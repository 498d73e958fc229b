"""The study in other places: DVC's experiments in workspaces, and a colleague without model, data or GPU."""

import shutil
import subprocess
import sys
import time

from project import MADE, ONCE, SPACES, TRAINS, Project, tracked


def committed(project):
    for words in (("add", "--all"), ("-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "-m", "study")):
        code, _, error = project.run("git", *words)
        assert code == 0, error


def test_experiments_run_alone_and_two_at_once_compare_and_appear_in_mlflow_under_their_names(fresh):
    committed(fresh)
    fresh.env |= {"GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@y", "GIT_COMMITTER_NAME": "x"}
    fresh.env["GIT_COMMITTER_EMAIL"] = "x@y"
    fresh.dvc("exp", "run", "--name", "here", "-S", "verbal.abstaining=[undefined]")
    assert "verbal.auc_in_domain" in fresh.dvc("metrics", "diff")
    fresh.dvc("plots", "show", "--out", "shown")
    page = (fresh.folder / "shown/index.html").read_text()
    assert "in_domain_vs_ood" in page
    assert list((fresh.folder / "shown/static").glob("*auc_by_n.png"))
    for name, draws in (("first", 3), ("second", 4)):
        fresh.dvc("exp", "run", "--queue", "--name", name, "-S", f"+regimes.draws={draws}")
    workers = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", "2"]  # they keep what they write to open
    subprocess.run(
        workers, cwd=fresh.folder, env=fresh.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )
    _wait_for_queue(fresh, 2)
    fresh.dvc("queue", "stop")
    told = fresh.dvc("exp", "show", "--csv", "--no-pager")
    assert all(name in told for name in ("here", "first", "second"))
    sizes = {study: len(tracked(fresh.folder, kind="cell", study=study)) for study in ("here", "first", "second")}
    assert sizes == dict.fromkeys(sizes, len(tracked(fresh.folder, kind="cell", study="workspace")))
    (parent,) = tracked(fresh.folder, kind="study", study="second")
    assert parent.data.params["regimes.draws"] == "4"
    assert parent.data.tags["dvc_experiment"] == "second"


def _wait_for_queue(project, n):
    deadline = time.monotonic() + 150
    while (told := project.dvc("queue", "status")).count("Success") < n:
        assert "Failed" not in told, project.dvc("queue", "logs", "first") + project.dvc("queue", "logs", "second")
        assert time.monotonic() < deadline, told
        time.sleep(1)


# What a person gets wrong. Each gives exit code 2, one line that begins with "error: ", and changes no earlier result.


AUTHOR = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")


def test_a_clone_pulls_the_caches_and_runs_from_the_fits_on_and_nothing_before(project, fresh, tmp_path):
    """The commands of the README's section on sharing, with a folder for a remote."""
    fresh.dvc("remote", "add", "-d", "ours", str(tmp_path / "remote"))
    fresh.dvc("push")
    assert fresh.run("git", "add", "--all")[0] == 0
    assert fresh.run("git", *AUTHOR, "commit", "--quiet", "-m", "the study")[0] == 0
    clone = Project(tmp_path / "clone")
    assert fresh.run("git", "clone", "--quiet", ".", str(clone.folder))[0] == 0
    shutil.rmtree(clone.folder / "dvcstore")

    dear = ("prepare", "extract", "encode", "directions", "verbal")
    clone.dvc("pull", *dear)
    assert not (clone.folder / "models").exists()
    assert not (clone.folder / "data/demo").exists()
    assert [path.name for path in (clone.folder / "results").rglob("*.*")] == ["verbal.parquet"]
    said = clone.dvc("repro", "--downstream", "fit_layer", "fit_sae", "text", "regimes")
    cheap = len(SPACES) * (len(TRAINS) + len(("transfer", "bootstrap"))) + len(ONCE) - len(("verbal",))
    assert said.count("Running stage") == cheap
    assert not [stage for stage in dear if f"sae_transfer.stages.{stage}" in said]
    assert clone.hashes(*MADE) == project.hashes(*MADE)

    clone.edit(lambda params: params["probe"].update(top_k=2))
    said = clone.dvc("repro", "--allow-missing", "--dry")
    assert "sae_transfer.stages.fit" in said
    assert not [stage for stage in dear if f"sae_transfer.stages.{stage}" in said]
    code, _, error = clone.run(sys.executable, "-m", "dvc", "repro", "--dry")
    assert code != 0  # the negative control: without --allow-missing DVC wants the data
    assert "data" in error
