"""`sae-transfer sweep` and `dashboard` as a person types them, on the planted project of test_tuning."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from test_tuning import PARAMS, ROOT, SWEEP, project

import demo_params
from commands import call
from sae_transfer import cli
from sae_transfer.pipeline.params import Params

__all__ = ["project"]  # a fixture


@pytest.fixture
def type_(project, monkeypatch, capfd):
    return lambda *words: call(monkeypatch, capfd, cli.main, *words)


def assert_one_line(result, *parts):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


QUIET = ("--sae", "small", "--no-track")
UNTUNED = [f"untuned.{name}" for name in ("cv_log_loss", "auc_in_domain", "auc_ood")]


def test_a_sweep_shows_its_progress_and_ends_with_a_table_that_it_keeps(type_, project):
    code, out, err = type_("sweep", *QUIET)
    assert code == 0
    assert "28/28" in err
    assert "2 of 2 (SAE, A) finished" in err
    lines = [line.split() for line in out.splitlines() if line.startswith("small")]
    kept = pd.read_csv("studies/sweep.csv")
    assert [line[:4] for line in lines] == kept[["sae", "train", "N", "C"]].astype(str).to_numpy().tolist()
    shown = kept[["cv_log_loss", "cv_auc", "auc_in_domain", "auc_ood", *UNTUNED]].to_numpy().round(3)
    assert [[float(number) for number in line[7:]] for line in lines] == shown.tolist()
    assert re.search(r"In \d of 2 \(SAE, A\) half of the trials or more come within 0\.001 of the best", out)
    assert "sae-transfer sweep --name sweep --apply" in out
    assert Path("studies/sweep.journal").is_file()


def test_the_summary_file_holds_every_trial_and_running_again_changes_no_byte(type_, project):
    assert type_("sweep", *QUIET, "-q") == (0, "", "")
    before = Path("studies/sweep.json").read_bytes()
    found = json.loads(before)
    assert [(each["study"], each["space"], each["train"]) for each in found] == [
        ("sweep", "small", "alpha"),
        ("sweep", "small", "beta"),
    ]
    assert {len(each["trials"]) for each in found} == {14}
    assert type_("sweep", *QUIET, "-q") == (0, "", "")
    assert Path("studies/sweep.json").read_bytes() == before


def test_json_prints_what_the_summary_holds(type_, project):
    code, out, _ = type_("sweep", *QUIET, "--json", "-q", "--max-trials", "3", "--name", "mine", "--train", "beta")
    assert code == 0
    assert json.loads(out) == json.loads(Path("studies/mine.json").read_text())
    assert len(json.loads(out)[0]["trials"]) == 3


def test_apply_writes_the_winners_and_runs_nothing(type_, project):
    type_("sweep", *QUIET, "-q")
    trials = {name: Path(f"studies/sweep.{name}").read_bytes() for name in ("journal", "json")}
    code, out, err = type_("sweep", "--apply")
    assert (code, err) == (0, "")
    section = Params.read().probe
    for train in ("alpha", "beta"):
        chosen = section.at("small", train)
        assert len(chosen.N) == len(chosen.C_grid) == 1
        assert f"probe.small.{train}: C {chosen.C_grid[0]:g}, N {chosen.N[0]}, {chosen.rule_n}, {chosen.scaling}" in out
    assert "2 (SAE, A) anew" in out
    assert "no table is there yet" in out
    assert {name: Path(f"studies/sweep.{name}").read_bytes() for name in trials} == trials
    assert type_("sweep", *QUIET, "-q") == (0, "", "")  # and what was applied does not change the search space
    code, out, _ = type_("sweep", "--apply", "--n-max", "2")
    assert code == 0
    section = Params.read().probe
    assert max(section.at("small", train).N[0] for train in ("alpha", "beta")) <= 2


def test_with_mlflow_down_the_sweep_is_whole_and_the_mistake_is_told(type_, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert_one_line(
        type_("sweep", "--sae", "small", "-q"), "MLflow server http://127.0.0.1:9: no answer", "studies/ are whole"
    )
    assert [len(each["trials"]) for each in json.loads(Path("studies/sweep.json").read_text())] == [14, 14]


def test_a_preset_brings_its_own_sweep_and_probe_but_no_other_study(type_, project):
    Path("presets").mkdir()
    preset = {**PARAMS, "sweep": PARAMS["sweep"] | {"trials": 2, "mode": "pareto"}}
    demo_params.write(preset, Path("presets/quick.yaml"))
    code, out, _ = type_("sweep", *QUIET, "--json", "-q", "--like", "quick")
    assert code == 0
    assert {(len(each["trials"]), each["params"]["mode"]) for each in json.loads(out)} == {(2, "pareto")}
    assert_one_line(type_("sweep", "--like", "quik"), "preset 'quik' is unknown; did you mean quick?")
    demo_params.write({**preset, "seed": 1}, Path("presets/other.yaml"))
    assert_one_line(type_("sweep", "--like", "other"), "presets/other.yaml: its seed is not that of params.yaml")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("sweep", "--sae", "smal"), ["smal is not in the study; did you mean small?"]),
        (("sweep", "--train", "gamma"), ["gamma is not in the study"]),
        (("sweep", "--apply"), ["sweep sweep: not in studies (known: none); `make sweep SWEEP=sweep` starts it"]),
        (("sweep", "--name", "a/b"), ["sweep 'a/b': a name has letters"]),
        (("sweep", "--max-trials", "0"), ["sweep.trials = 0: Input should be greater than 0"]),
        (("dashboard", "--name", "mine"), ["sweep mine: not in studies"]),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(type_, words, parts):
    assert_one_line(type_(*words), *parts)
    assert not list(Path().glob("studies/*.journal"))


def test_before_any_run_the_missing_features_are_named(type_, project):
    for path in Path("artifacts/features").rglob("*.safetensors"):
        path.unlink()
    said = "artifacts/features/small/alpha.safetensors: not found; `dvc repro` makes it"
    assert_one_line(type_("sweep", "-q"), said)


def test_an_old_params_file_without_the_section_is_told(type_, project):
    demo_params.write({name: value for name, value in PARAMS.items() if name != "sweep"})
    assert_one_line(type_("sweep"), "params.yaml: sweep is missing")


def test_the_dashboard_opens_the_journal_on_loopback_alone(type_, project):
    type_("sweep", *QUIET, "-q", "--max-trials", "2")
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-c", SWEEP, "dashboard", "--port", "0"]
    process = subprocess.Popen(words, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        url = process.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert "Optuna Dashboard" in opener.open(f"{url}dashboard", timeout=20).read().decode()
        studies = json.loads(opener.open(f"{url}api/studies", timeout=20).read())["study_summaries"]
        assert {each["study_name"] for each in studies} == {"sweep/small/alpha", "sweep/small/beta"}
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        assert_one_line(type_("dashboard", "--port", str(port)), f"port {port}: Address already in use; choose another")
        with socket.socket() as other:
            assert other.connect_ex(("127.0.0.2", port)) != 0  # it listens on no other address
    finally:
        process.terminate()
        process.communicate()


def test_make_passes_its_variables_on():
    words = ["make", "--no-print-directory", "-n", "sweep", "JOBS=3", "MAX_TRIALS=7", "SWEEP=mine", "LIKE=quick"]
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1].split() == "sae-transfer sweep --name mine --jobs 3 --max-trials 7 --like quick".split()
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "dashboard", "SWEEP=mine"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1].split() == "sae-transfer dashboard --name mine --port 8081".split()
