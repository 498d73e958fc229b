"""What a person types, and what they are told."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

import pandas as pd
import psutil
import pytest

import demo_params
from commands import call
from sae_transfer import cli
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.demo import generated
from sae_transfer.pipeline import __main__ as stages
from sae_transfer.pipeline.params import Params

ROOT = Path(__file__).parents[2]
PARAMS = demo_params.demo(
    study={"datasets": ["alpha", "beta"], "saes": ["narrow_2", "gemma-2.5"]},
    model={"name": "models/demo/model", "layers": [2]},
    saes={name: {"layer": 2, "path": f"models/demo/saes/{name}"} for name in ("narrow_2", "gemma-2.5")},
    datasets={
        name: {"loader": "table", "path": f"data/demo/{name}.jsonl", "n_train": 4, "n_test": 4}
        for name in ("alpha", "beta", "v1.5")
    },
    probe={"n_folds": 2, "C_grid": [1.0], "N": [2], "top_k": 2, "repeats": 2, "matched_n_train": 4},
    transfer={"resamples": 10, "whole": False},
    bootstrap={"resamples": 2, "seeds": 2},
    tracking={"uri": None, "experiment": "tests"},
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo_params.write(PARAMS)
    shutil.copy(ROOT / "versions.yaml", "versions.yaml")
    return tmp_path


@pytest.fixture
def type_(project, monkeypatch, capsys):
    return lambda *words: call(monkeypatch, capsys, cli.main, *words)


@pytest.fixture
def stage(project, monkeypatch, capsys):
    return lambda *words: call(monkeypatch, capsys, stages.main, *words)


def assert_one_line(result, *parts):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in parts:
        assert part in err


def present(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_summary_before_any_run_names_dvc_repro(type_):
    assert_one_line(type_("summary"), "results/verdict.json: not found; `dvc repro` makes it")


def test_ui_without_a_store_names_dvc_repro_and_with_a_server_elsewhere_says_where_it_is(type_, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert_one_line(type_("ui"), "mlruns/mlflow.db: not found; `dvc repro` makes it")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org")
    code, out, err = type_("ui")
    assert (code, err) == (0, "")
    assert "https://me:***@mlflow.example.org" in out


def test_ui_prints_a_link_serves_it_and_ends_with_its_server(project):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[2])
    code = (
        "from pathlib import Path; from sae_transfer.tracking import TrackingParams, location\n"
        "with location.opened(TrackingParams(experiment='tests')): pass\n"
        "from sae_transfer.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "ui", "--port", str(port)]
    # A process in the background ignores the interrupt, and hands that down.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=project)
    signal.signal(signal.SIGINT, before)
    with process:
        link = process.stdout.readline().split()[-1]
        assert link.startswith(f"http://127.0.0.1:{port}/#/experiments/1/runs?")
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            assert answer.status == 200
        servers = psutil.Process(process.pid).children(recursive=True)
        listening = {c.laddr.ip for p in servers for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        assert len(servers) <= 3  # MLflow's default is 15 processes
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    _, alive = psutil.wait_procs(servers, timeout=30)
    assert alive == []


def test_generate_writes_the_datasets(project, type_, monkeypatch):
    monkeypatch.setattr(generated, "DEMO_ROWS", 4)
    monkeypatch.setattr(generated, "PAPER_ROWS", {"equation": 4, "celebrity": 600})
    code, out, _ = type_("data", "generate")
    assert code == 0
    assert "data/demo/passages.jsonl: 4 rows" in out
    assert len((project / "data/demo/passages.jsonl").read_text().splitlines()) == 4
    assert len(present(project / "data")) == 7


def test_an_unknown_command_is_named(type_):
    code, _, err = type_("prun")
    assert code == 2
    assert "prun" in err
    assert "Traceback" not in err


def test_a_mistake_outside_a_project_is_one_line(tmp_path):
    command = [sys.executable, "-c", "from sae_transfer.cli import main; main()"]
    done = subprocess.run([*command, "check"], capture_output=True, text=True, cwd=tmp_path)
    assert_one_line((done.returncode, done.stdout, done.stderr), "params.yaml: not found; run this from")
    done = subprocess.run([*command, "--debug", "check"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "params.yaml: not found" in done.stderr


def test_debug_raises_the_mistake_itself(project, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"verdict\.json"):
        call(monkeypatch, capsys, cli.main, "--debug", "summary")


def test_version_is_the_packages(type_):
    assert type_("--version") == (0, f"{version('sae-transfer')}\n", "")


@pytest.mark.parametrize("words", [("-h",), ("score", "-h"), ("data", "-h"), ("data", "fetch", "-h")])
def test_short_help_is_help(type_, words):
    code, out, _ = type_(*words)
    assert code == 0
    assert out == type_(*words[:-1], "--help")[1]
    assert "Usage: " in out


def test_completion_can_be_had(type_):
    assert "--install-completion" in type_("--help")[1]


def test_a_text_that_looks_like_an_option_is_a_text(type_):
    assert "train is missing" in type_("score", "--text", "--debug")[2]


def test_ctrl_c_is_one_line(type_, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sae_transfer.core.files.read_json", interrupted)
    code, _, err = type_("summary")
    assert code == 130
    assert err.strip() == "stopped; what was finished is kept, and the same command goes on from there"


def test_run_checks_first(type_):
    assert_one_line(type_("run", "no-such-preset"), "no-such-preset")
    assert_one_line(type_("run"), "models/demo/model", "not found")


# check


@pytest.fixture
def checked(project):
    """The project with all that its params name."""
    for name, domain in (("alpha", "people"), ("beta", "sums")):
        rows = next(rows for path, rows in generated.everything(0) if path.stem == domain)
        files.write_text(project / f"data/demo/{name}.jsonl", generated.as_jsonl(rows))
    for folder in ("model", "saes/narrow_2", "saes/gemma-2.5"):
        (project / "models/demo" / folder).mkdir(parents=True)
    return project


def test_check_says_that_all_is_well_and_what_is_too_small_to_be_sure_of(checked, type_):
    code, out, err = type_("check")
    assert (code, err) == (0, "")
    *notes, last = out.splitlines()
    assert [note.split(" are worth")[0] for note in notes] == [
        f"warning: The test rows of {name}" for name in ("alpha", "beta")
    ]
    assert last == "params.yaml is in order"


def test_check_tells_what_datasets_share_and_what_is_wrong(checked, type_):
    shutil.copy(checked / "data/demo/alpha.jsonl", checked / "data/demo/beta.jsonl")
    demo_params.write(
        PARAMS
        | {"datasets": {name: PARAMS["datasets"][name] | {"n_train": 200, "n_test": 200} for name in ("alpha", "beta")}}
    )
    code, out, err = type_("check")
    assert (code, err) == (0, "")
    assert "of 200 test rows of beta stand among alpha's training rows: left out of alpha to beta.\n" in out
    assert out.endswith("params.yaml is in order\n")
    demo_params.write(PARAMS | {"probe": PARAMS["probe"] | {"n_fold": 3}})
    assert_one_line(type_("check"), "params.yaml: unknown key probe.n_fold; did you mean n_folds?")


# stages


def test_a_stage_is_a_verb_of_the_pipeline(project):
    command = [sys.executable, "-m", "sae_transfer.pipeline", "prepar"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert_one_line((done.returncode, done.stdout, done.stderr), "stage 'prepar' is unknown; did you mean prepare")


@pytest.mark.parametrize("words", [(), ("fit", "alpha"), ("Fit",), ("../fit",), ("stage",)])
def test_a_stage_takes_no_words(stage, words):
    assert_one_line(stage(*words), f"stage '{' '.join(words)}' is unknown; ")


@pytest.mark.parametrize("verb", stages.VERBS)
def test_whatever_stage_a_wrong_params_file_is_one_line(stage, verb):
    demo_params.write({"seed": 0, "datasets": PARAMS["datasets"], "sdudy": {}})
    assert_one_line(stage(verb), "params.yaml: unknown key sdudy; did you mean study?")
    Path("params.yaml").unlink()
    assert_one_line(stage(verb), "params.yaml: not found; run this from the project's root")


MISSING = {
    "verb": "message",
    "inputs": "data/demo/alpha.jsonl: not found; `dvc pull data.dvc` brings it",
    "prepare": "artifacts/inputs.json: not found; `dvc repro` makes it",
    "extract": "artifacts/prompts/alpha.parquet: not found; `dvc repro` makes it",
    "judge": "artifacts/prompts/alpha.parquet: not found; `dvc repro` makes it",
    "encode": "artifacts/activations/manifest.json: not found; `dvc repro` makes it",
    "fit": "artifacts/prompts/manifest.json: not found; `dvc repro` makes it",
    "transfer": "artifacts/prompts/manifest.json: not found; `dvc repro` makes it",
    "resample": "artifacts/prompts/manifest.json: not found; `dvc repro` makes it",
    "analyse": "artifacts/prompts/manifest.json: not found; `dvc repro` makes it",
    "report": "results/transfer.csv: not found; `dvc repro` makes it",
    "track": "results/transfer.csv: not found; `dvc repro` makes it",
}


@pytest.mark.parametrize("verb", stages.VERBS)
def test_a_stage_with_a_missing_input_names_what_brings_it(stage, verb):
    assert_one_line(stage(verb), MISSING[verb])


def test_data_that_only_a_later_stage_reads_are_not_needed_again(project, stage):
    """A colleague who pulled results has no raw data: what is not there keeps the hash that it had."""
    known = {"datasets": {"alpha": "1", "beta": "2"}, "model": "3", "saes": {"narrow_2": "4", "gemma-2.5": "5"}}
    params = Params.read()
    known["read"] = {f"datasets {name}": [str(params.datasets[name].path)] for name in ("alpha", "beta")}
    known["read"] |= {f"saes {name}": [str(sae.path)] for name, sae in params.saes.items()} | {
        "model": [params.model.name]
    }
    files.write_json(project / "artifacts/inputs.json", known)
    assert stage("inputs") == (0, "", "")
    assert files.read_json(project / "artifacts/inputs.json") == known


def test_a_missing_model_names_dvc_pull(stage, project):
    for name in ("alpha", "beta"):
        rows = {"id": ["1"], "variation": ["default"], "prompt": ["a b"], "chat": pd.array([None], dtype="boolean")}
        files.write_table(project / f"artifacts/prompts/{name}.parquet", pd.DataFrame(rows))
    files.write_json(project / "artifacts/inputs.json", {"datasets": {}, "model": "x", "saes": {}})
    assert_one_line(stage("extract"), "models/demo/model: not found; `dvc pull models.dvc` brings it")


def test_versions_that_are_missing_are_told(stage, project):
    found = {"datasets": {"alpha": "1", "beta": "2"}, "model": "x", "saes": {}}
    files.write_json(project / "artifacts/inputs.json", found)
    Path("versions.yaml").unlink()
    assert_one_line(stage("prepare"), "versions.yaml: not found")
