"""The study in other places: other commits, DVC's experiments, and a colleague without model, data or GPU."""

import shutil
import subprocess
import sys
import time

from project import MADE, STAGES, Project, tracked

AUTHOR = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def committed(project, message="study"):
    project.env |= AUTHOR
    for words in (("add", "--all"), ("commit", "--quiet", "-m", message)):
        code, _, error = project.run("git", *words)
        assert code == 0, error


def stages_run(said):
    return [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]


def times(project, folder):
    return {path: path.stat().st_mtime_ns for path in (project.folder / folder).rglob("*.safetensors")}


def test_a_checkout_of_another_commit_brings_its_items_and_computes_nothing(project, fresh):
    committed(fresh)
    fresh.edit(lambda params: params["probe"].update(C_grid=[0.1]))
    fresh.dvc("repro")
    committed(fresh, "another grid")
    assert fresh.hashes("results") != project.hashes("results")
    assert fresh.run("git", "checkout", "--quiet", "HEAD~1")[0] == 0
    fresh.dvc("checkout")
    assert fresh.hashes(*MADE) == project.hashes(*MADE)
    assert stages_run(fresh.dvc("repro")) == ["inputs", "track"]


def test_experiments_run_here_in_a_workspace_of_their_own_and_queued(fresh):
    committed(fresh)
    before = times(fresh, "artifacts/activations")
    fresh.dvc("exp", "run", "--name", "here", "-S", "probe.top_k=2")
    assert times(fresh, "artifacts/activations") == before
    assert "in_domain.sparse" in fresh.dvc("metrics", "diff", "--all")
    fresh.dvc("plots", "show", "--out", "shown")
    assert "in_domain_vs_ood" in (fresh.folder / "shown/index.html").read_text()
    assert list((fresh.folder / "shown/static").glob("*auc_by_n.png"))
    said = fresh.dvc("exp", "run", "--temp", "--name", "apart", "-S", "generalization.draws=3")
    assert stages_run(said) == ["inputs", "analyse", "report", "track"]
    fresh.dvc("exp", "run", "--queue", "--name", "queued", "-S", "generalization.draws=4")
    workers = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", "1"]  # they keep what they write to open
    subprocess.run(
        workers, cwd=fresh.folder, env=fresh.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
    )
    _wait_for_queue(fresh, 1)
    fresh.dvc("queue", "stop")
    told = fresh.dvc("exp", "show", "--csv", "--no-pager")
    assert all(name in told for name in ("here", "apart", "queued"))
    cells = {study: len(tracked(fresh.folder, kind="cell", study=study)) for study in ("here", "apart", "queued")}
    assert cells == dict.fromkeys(cells, len(tracked(fresh.folder, kind="cell", study="workspace")))
    (parent,) = tracked(fresh.folder, kind="study", study="queued")
    assert parent.data.params["generalization.draws"] == "4"
    assert parent.data.tags["dvc_experiment"] == "queued"


def _wait_for_queue(project, n):
    deadline = time.monotonic() + 150
    refs = project.folder / ".git/refs/exps"
    while not list(refs.rglob("queued")) and time.monotonic() < deadline - 60:  # a look there is cheaper than `dvc`
        time.sleep(0.2)
    while (told := project.dvc("queue", "status")).count("Success") < n:
        assert "Failed" not in told, project.dvc("queue", "logs", "queued")
        assert time.monotonic() < deadline, told
        time.sleep(1)


def test_a_colleague_without_data_weights_or_gpu_pulls_what_was_made_and_goes_on_from_the_fits(
    project, fresh, tmp_path
):
    """The commands of the README's section on sharing, with a folder for a remote."""
    fresh.dvc("remote", "add", "-d", "ours", str(tmp_path / "remote"))
    fresh.dvc("push")
    committed(fresh, "the study")
    clone = Project(tmp_path / "clone")
    assert fresh.run("git", "clone", "--quiet", ".", str(clone.folder))[0] == 0
    shutil.rmtree(clone.folder / "dvcstore")

    clone.dvc("pull", *STAGES[:-1])
    assert not (clone.folder / "models").exists()
    assert not (clone.folder / "data/demo").exists()
    assert clone.hashes(*MADE) == project.hashes(*MADE)
    kept = times(clone, "artifacts/features")
    clone.edit(lambda params: params["probe"].update(C_grid=[0.1]))
    said = clone.dvc("repro", "--allow-missing", "track")
    assert stages_run(said) == ["inputs", *STAGES[5:]]
    assert times(clone, "artifacts/features") == kept
    assert clone.hashes("results") != project.hashes("results")
