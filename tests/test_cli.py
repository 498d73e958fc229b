"""What a person types, and what they are told."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pandas as pd
import psutil
import pytest
import yaml

from commands import call
from sae_transfer import cli, stages
from sae_transfer.records import UserError
from sae_transfer.stages.bootstrap import bootstrap
from sae_transfer.stages.encode import encode
from sae_transfer.stages.extract import extract
from sae_transfer.stages.fit import fit
from sae_transfer.stages.prepare import prepare
from sae_transfer.stages.report import make_report
from sae_transfer.stages.track import track
from sae_transfer.stages.transfer import transfer

PARAMS = {
    "seed": 0,
    "study": {"datasets": ["alpha", "beta"], "saes": ["narrow_2", "gemma-2.5"], "saes_identity": "models/demo/saes"},
    "model": {"name": "models/demo/model", "identity": "models/demo/model", "layers": [2]},
    "saes": {name: {"layer": 2, "path": f"models/demo/saes/{name}"} for name in ("narrow_2", "gemma-2.5")},
    "datasets": {
        name: {"loader": "table", "path": f"data/demo/{name}.jsonl", "n_train": 4, "n_test": 4}
        for name in ("alpha", "beta", "v1.5")
    },
    "probe": {"n_folds": 2, "C": [1.0], "N": [2], "top_k": 2, "repeats": 2, "matched_n_train": 4},
    "transfer": {"resamples": 10, "whole": False},
    "bootstrap": {"resamples": 2, "seeds": 2},
    "regimes": {"datasets": []},
    "tracking": {"uri": None, "experiment": "tests"},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_params(PARAMS)
    return tmp_path


def write_params(params):
    Path("params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture
def type_(project, monkeypatch, capsys):
    return lambda *words: call(monkeypatch, capsys, cli.main, *words)


@pytest.fixture
def stage(project, monkeypatch, capsys):
    return lambda function, *words: call(monkeypatch, capsys, lambda: stages.run(function), *words)


def assert_one_line(result, *parts):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    for part in parts:
        assert part in err


NAMED = [
    "artifacts/prompts/alpha.parquet",
    "artifacts/prompts/v1.5.parquet",  # in `datasets`, not in the study: prepared nevertheless
    "artifacts/activations/alpha/identity.json",
    "artifacts/features/beta/narrow_2.npz",
    "artifacts/features/beta/gemma-2.5.npz",
    "artifacts/directions/narrow_2.safetensors",
    "artifacts/probes/layer_2/alpha/probes.json",
    "artifacts/probes/gemma-2.5/beta/probes.json",
    "artifacts/scores/gemma-2.5.parquet",
    "artifacts/scores/layer_2.parquet",
    "artifacts/bootstrap/gemma-2.5/features.parquet",
    "artifacts/bootstrap/layer_2/probes.safetensors",
    "results/bootstrap/gemma-2.5.csv",
    "results/bootstrap/gemma-2.5_features.csv",
    "results/bootstrap/layer_2.csv",
    "artifacts/predictors/gemma-2.5.parquet",
    "results/transfer/gemma-2.5.parquet",
    "artifacts/scores/text.parquet",
    "results/transfer/verbal.parquet",
    "results/transfer.csv",
    "data/demo/old.jsonl",
    "models/demo/saes/old/cfg.json",
]
LEFT_OVER = [
    "artifacts/prompts/old.parquet",
    "artifacts/prompts/.alpha.parquet.k1ll3d.parquet",  # a killed run's
    "artifacts/activations/old/identity.json",
    "artifacts/activations/v1.5/identity.json",
    "artifacts/features/old/narrow_2.npz",
    "artifacts/directions/wide_3.safetensors",
    "artifacts/probes/layer_3/alpha/probes.json",
    "artifacts/probes/layer_2/old/probes.json",
    "artifacts/probes/gemma-2/alpha/probes.json",
    "artifacts/scores/layer_3.parquet",
    "artifacts/bootstrap/wide_3/features.parquet",
    "results/bootstrap/wide_3_features.csv",
    "results/bootstrap/layer_3.csv",
    "artifacts/predictors/wide_3.parquet",
    "results/transfer/wide_3.parquet",
]


def present(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_prune_deletes_what_params_no_longer_name_and_nothing_else(project, type_):
    for name in NAMED + LEFT_OVER:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    code, out, _ = type_("prune", "--dry-run")
    assert code == 0
    assert present(project) == sorted([*NAMED, *LEFT_OVER, "params.yaml"])
    announced = [line.removeprefix("would delete ") for line in out.splitlines()]
    assert len(announced) == len(LEFT_OVER)
    assert all(any(name.startswith(path) for path in announced) for name in LEFT_OVER)
    code, out, _ = type_("prune")
    assert code == 0
    assert [line.removeprefix("deleting ") for line in out.splitlines()] == announced
    assert present(project) == sorted([*NAMED, "params.yaml"])
    assert type_("prune") == (0, "", "")


def test_prune_touches_nothing_while_params_are_wrong(project, type_):
    (project / "artifacts/prompts").mkdir(parents=True)
    (project / "artifacts/prompts/old.parquet").touch()
    for wrong, said in [
        (PARAMS | {"study": None}, "study = None"),
        (PARAMS | {"study": {"datasets": ["alpha"], "saes": []}}, "study.saes_identity is missing"),
        ({name: PARAMS[name] for name in ("study", "model", "seed")}, "no 'datasets' under its top level"),
    ]:
        write_params(wrong)
        assert_one_line(type_("prune"), said)
        assert (project / "artifacts/prompts/old.parquet").exists()


def test_summary_says_what_was_found_and_where_to_look(project, type_):
    scores = {"auc_in_domain": 0.91234, "auc_ood": 0.0}
    metrics = {"layer_2": {"residual": scores, "note": {}}, "narrow_2": {"sparse_1": scores | {"auc_ood": None}}}
    (project / "results").mkdir()
    (project / "results/metrics.json").write_text(json.dumps(metrics))
    code, out, err = type_("summary")
    assert (code, err) == (0, "")
    first, second, *_ = out.splitlines()
    assert first.split() == "layer_2 residual mean AUC in domain 0.912, out of domain 0.000".split()
    assert second.split() == "narrow_2 sparse_1 mean AUC in domain 0.912, out of domain nan".split()
    assert "report/index.html" in out
    assert "note" not in out


def test_summary_before_any_run_names_dvc_repro(type_):
    assert_one_line(type_("summary"), "results/metrics.json: not found; `dvc repro` makes it")


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
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=project) as process:
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
    from sae_transfer.datasets import generated

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
    command = [sys.executable, "-c", "from sae_transfer.cli import main; main()", "prune"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert_one_line((done.returncode, done.stdout, done.stderr), "params.yaml: not found; run this from")
    done = subprocess.run([*command, "--debug"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "params.yaml: not found" in done.stderr


def test_debug_raises_the_mistake_itself(project, monkeypatch, capsys):
    with pytest.raises(UserError, match=r"metrics\.json"):
        call(monkeypatch, capsys, cli.main, "--debug", "summary")


def test_an_unknown_dataset_is_one_line_with_the_closest_names(project):
    command = [sys.executable, "-m", "sae_transfer.stages.prepare", "alhpa"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert_one_line((done.returncode, done.stdout, done.stderr), "no 'alhpa' under datasets; did you mean alpha?")


def test_an_unknown_space_is_told_the_closest_names(stage):
    assert_one_line(stage(bootstrap, "narow_2"), "space 'narow_2' is unknown; did you mean narrow_2")
    assert_one_line(stage(transfer, "narow_2"), "space 'narow_2' is unknown; did you mean narrow_2")


@pytest.mark.parametrize("words", [(), ("alpha", "beta")])
def test_a_stage_says_which_words_it_takes(stage, words):
    assert_one_line(stage(prepare, *words), f"prepare takes dataset, not {' '.join(words)!r}")
    assert_one_line(stage(make_report, "x"), "make_report takes no words, not 'x'")


@pytest.mark.parametrize("function", [prepare, encode, fit, transfer, bootstrap])
def test_a_params_file_without_a_section_is_one_line(stage, function):
    write_params({"seed": 0, "datasets": PARAMS["datasets"], "sdudy": {}})
    words = {prepare: ["gamma"], fit: ["layer_2", "alpha"]}.get(function, ["alpha"])
    assert_one_line(stage(function, *words), "params.yaml: no '")


def test_stages_with_a_missing_input_name_what_brings_it(stage):
    assert_one_line(stage(prepare, "alpha"), "data/demo/alpha.jsonl: not found; `dvc pull data.dvc` brings it")
    assert_one_line(stage(extract, "alpha"), "artifacts/prompts/alpha.parquet: not found; `dvc repro` makes it")
    assert_one_line(stage(encode, "alpha"), "artifacts/activations/alpha/identity.json: not found; `dvc repro`")
    assert_one_line(stage(fit, "narrow_2", "alpha"), "artifacts/prompts/alpha.parquet: not found; `dvc repro`")
    assert_one_line(stage(transfer, "layer_2"), "artifacts/probes/layer_2/alpha/probes", "`dvc repro` makes it")
    assert_one_line(stage(make_report), "results/transfer.csv: not found; `dvc repro` makes it")
    assert_one_line(stage(track), "results/transfer.csv: not found; `dvc repro` makes it")


def test_a_missing_model_names_dvc_pull(stage, project):
    (project / "artifacts/prompts").mkdir(parents=True)
    table = pd.DataFrame({"id": ["1"], "variation": ["default"], "prompt": ["a b"]})
    table.to_parquet(project / "artifacts/prompts/alpha.parquet")
    assert_one_line(stage(extract, "alpha"), "models/demo/model", "dvc pull models.dvc")
