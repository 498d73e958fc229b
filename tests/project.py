"""A small study in a folder of its own, and the commands that a person runs there."""

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from sae_transfer import cli
from sae_transfer.pipeline.__main__ import main
from sae_transfer.pipeline.study import Study
from sae_transfer.tracking import TrackingParams, location

ROOT = Path(__file__).parents[1]
TRAINS, SIZES, LAYER, SAE = ("passages", "people"), (60, 40), "layer_3", "narrow_3"
SPACES = (LAYER, SAE)
STAGES = "inputs prepare extract judge encode fit transfer resample analyse report track".split()
# A proxy that is not there: nothing below may need a network.
NOWHERE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def small(params):
    """The demo's params.yaml with two datasets, one of them in two templates, one layer and one SAE."""
    params["study"] |= {"datasets": list(TRAINS), "saes": [SAE]}
    params["model"]["layers"] = [3]
    params["saes"] = {SAE: params["saes"][SAE]}
    params["datasets"] = {name: params["datasets"][name] | {"n_train": 60, "n_test": 40} for name in TRAINS}
    params["datasets"]["passages"]["variations"] = ["terse"]
    params["probe"] |= {"C_grid": [0.01, 1.0], "N": [2, 8], "top_k": 3, "repeats": 20, "matched_n_train": 40}
    params["transfer"]["resamples"] = 200
    params["bootstrap"] = {"resamples": 4, "seeds": 3}
    params["jobs"] = 1  # so small that starting processes would take longer
    return params


class Project:
    """A folder with a study in it, and the commands that a person runs there."""

    def __init__(self, folder):
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = os.environ | NOWHERE | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "true"}
        self.env["DVC_SITE_CACHE_DIR"] = str(folder.parent / "dvc")
        for name in ("PYTHONPATH", "MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME"):
            self.env.pop(name, None)

    def start(self, *words, **options):
        return subprocess.Popen(
            words, cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )

    def run(self, *words):
        """(exit code, stdout, stderr) of a command."""
        process = self.start(*words)
        out, error = process.communicate(timeout=230)
        return process.returncode, out, error

    def dvc(self, *words):
        code, out, error = self.run(sys.executable, "-m", "dvc", *words)
        assert code == 0, out + error
        return out

    def command(self, *stages):
        """Stages one after another in one new process, with the project's own copy of the code."""
        code = "import sys; from sae_transfer.pipeline.__main__ import main\n"
        code += "for name in sys.argv[1:]: sys.argv = ['stage', name]; main()"
        return self.run("env", "PYTHONPATH=src", "python", "-c", code, *stages)

    def stages(self, *names):
        """The same in copies of this process, which has imported what they need; of the last one that ran."""
        for name in names:
            if (ended := self.stage(name))[0]:
                break
        return ended

    def stage(self, name):
        """(exit code, stdout, stderr) of a stage in a copy of this process."""
        return _ended(*self.started(name))

    def cli(self, *words):
        """(exit code, stdout, stderr) of a command of `sae-transfer`, in a copy of this process too."""
        return _ended(*self._copied(cli.main, *words))

    def started(self, name):
        """A stage that has begun so: its process, and the files of its stdout and stderr."""
        return self._copied(main, name)

    def _copied(self, entry, *words):
        import_module("sae_lens")  # what stages import in functions, once for all copies
        out, error = (self.folder.parent / f"{self.folder.name}.{stream}" for stream in ("out", "error"))
        process = multiprocessing.get_context("fork").Process(target=self._copy, args=(entry, words, out, error))
        process.start()
        return process, out, error

    def _copy(self, entry, words, out, error):
        os.setsid()
        os.chdir(self.folder)
        os.environ.update(self.env)
        for path, stream in ((out, 1), (error, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv, sys.stdout, sys.stderr = ["sae-transfer", *words], os.fdopen(1, "w"), os.fdopen(2, "w")
        entry()

    @property
    def study(self):
        return Study.open(self.folder)

    def edit(self, change):
        """Changes params.yaml."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        change(params)
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def copy(self, folder):
        """A copy; what is large is linked, not copied, so a test that changes it puts a new file in its place."""

        def link(source, target):
            large = {"cache", "dvcstore", "models"} & set(Path(source).relative_to(self.folder).parts)
            (os.link if large else shutil.copy2)(source, target)

        shutil.copytree(self.folder, folder, copy_function=link, ignore=shutil.ignore_patterns("tmp", "__pycache__"))
        return Project(folder)

    def hashes(self, *folders):
        """{path: sha256} of every file in the folders."""
        paths = [path for name in folders for path in sorted((self.folder / name).rglob("*")) if path.is_file()]
        paths = [path for path in paths if path.name != ".hashes.json"]  # a cache, which inputs may write or not
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _ended(process, out, error):
    process.join(200)
    return process.exitcode, out.read_text(), error.read_text()


MADE = ("artifacts", "results", "report")


def finished(folder):
    """The demo, small, in this folder after `dvc repro`."""
    made = Project(folder)
    shutil.copytree(ROOT / "src", made.folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in (
        "dvc.yaml",
        "versions.yaml",
        "data.dvc",
        "models.dvc",
        ".gitignore",
        ".dvcignore",
        ".dvc/config",
        "data/.gitignore",
    ):
        (made.folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, made.folder / name)
    (made.folder / ".dvc/config.local").write_text("[core]\n    check_update = false\n")
    params = small(yaml.safe_load((ROOT / "presets/demo.yaml").read_text()))
    (made.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert made.run("git", "init", "--quiet")[0] == 0
    _bring_data(made)
    made.dvc("repro")
    return made


def _bring_data(made):
    folders = ("data/demo", "data/paper", "models/demo")
    if (ROOT / "dvcstore").is_dir():
        shutil.copytree(ROOT / "dvcstore", made.folder / "dvcstore")
        made.dvc("pull", "data.dvc", "models.dvc")
    elif all((ROOT / folder).is_dir() for folder in folders):  # a demo model that is not pushed yet
        for folder in folders:
            shutil.copytree(ROOT / folder, made.folder / folder)
        made.dvc("commit", "--force", "data.dvc", "models.dvc")
    else:
        pytest.skip("neither dvcstore/ nor data/demo, data/paper and models/demo are there")


def tracked(folder, **tags):
    """The runs in a project's MLflow store that have these tags."""
    with location.opened(TrackingParams(), folder / "mlruns") as opened:
        return opened.runs({"superseded": "no", **tags})
