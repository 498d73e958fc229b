"""Against a hub that answers on this machine, stores of MLflow in every state, and a token that must never be seen."""

import functools
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import demo_params
from commands import call
from sae_transfer import cli
from sae_transfer.pipeline import doctor

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "presets/demo.yaml"
TOKEN = "hf_ThisMustNeverBeSeenAnywhere"
MODEL = "org/tiny"


class Hub(BaseHTTPRequestHandler):
    """Answers every question with (status, error code), and gives the token away wherever a server could."""

    def do_GET(self):
        status, code = self.server.answers["whoami" if "whoami" in self.path else "model"]
        body = json.dumps({"error": f"bad token {TOKEN}", "name": TOKEN, "auth": {}}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", f"refused {TOKEN}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """What the hub answers, to be changed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.answers = {"model": (200, None), "whoami": (200, None)}
    threading.Thread(target=functools.partial(server.serve_forever, 0.01), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield server.answers
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "project/.dvc").mkdir(parents=True)
    shutil.copy(ROOT / ".dvc/config", tmp_path / "project/.dvc/config")
    subprocess.run(["git", "init", "--quiet", tmp_path / "project"], check=True)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def found(model=MODEL, cost=None):
    return {each.check: each for each in doctor.findings(model, "cpu", cost)}


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [
        ((200, None), "ok", "the hub gives access"),
        ((403, "GatedRepo"), "problem", f"gated; accept its licence at https://huggingface.co/{MODEL}"),
        ((401, "RepoNotFound"), "problem", f"no model {MODEL} on the hub"),
        ((500, None), "problem", "hf download"),
    ],
)
def test_what_the_hub_says_of_the_model(hub, project, answer, state, said):
    hub["model"] = answer
    finding = found()["model"]
    assert finding.state == state
    assert said in finding.text


@pytest.mark.parametrize(
    ("answer", "state", "said"),
    [((200, None), "ok", "accepts it"), ((401, None), "problem", "refuses it"), ((500, None), "note", "not tried")],
)
def test_what_the_hub_says_of_the_token(hub, project, answer, state, said):
    hub["whoami"] = answer
    finding = found()["hub token"]
    assert finding.state == state
    assert said in finding.text


@pytest.mark.parametrize("status", [200, 401, 403, 404, 500])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_token_is_never_shown(hub, project, status, as_json, monkeypatch, capfd):
    hub["model"] = hub["whoami"] = (status, None)
    Path("params.yaml").write_text(DEMO.read_text().replace("name: models/demo/model", f"name: {MODEL}"))
    monkeypatch.setattr(sys, "argv", ["sae-transfer", "doctor", "--tflops", "1", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    assert ended.value.code == (0 if status == 200 else 1)
    assert "hub token" in out
    assert TOKEN not in out + err


def test_offline_a_cached_model_is_enough(hub, project, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert found()["model"].state == "problem"
    assert "HF_HUB_OFFLINE" in found()["model"].text
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "hub/models--org--tiny"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(commit)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    assert found()["model"].state == "note"
    assert found()["hub token"].text == "one is set, not tried"


def test_without_a_token_and_with_a_local_model_the_hub_is_not_asked(project, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr("huggingface_hub.HfApi", None)
    Path("mine").mkdir()
    checks = found("mine")
    assert checks["model"].state == "ok"
    assert (checks["hub token"].state, checks["DVC remote"].state) == ("note", "note")
    assert checks["Python"].state == "ok"


def test_the_mlflow_store_in_every_state(hub, project):
    assert found()["MLflow store"].state == "note"
    Path("mlruns").mkdir()
    with sqlite3.connect("mlruns/mlflow.db") as store:
        store.execute("create table runs (id)")
        store.execute("insert into runs values (1)")
    assert found()["MLflow store"].text == "mlruns/mlflow.db, 1 runs"
    Path("mlruns/mlflow.db").write_text("no database" * 100)
    assert found()["MLflow store"].state == "problem"
    Path("mlruns/0").mkdir()
    Path("mlruns/0/meta.yaml").touch()
    assert "old file store" in found()["MLflow store"].text


def test_too_little_memory_or_disk_is_a_problem(hub, project, monkeypatch):
    from sae_transfer.pipeline.study_cost import Estimate

    small = dict.fromkeys(("prompts", "tokens", "download", "model", "saes", "activations", "features", "device"), 1)
    small["counted"] = True
    cost = Estimate(**small, host=10**9, flops=1.0, seconds={})
    assert {found(cost=cost)[check].state for check in ("memory", "disk")} == {"ok"}
    large = Estimate(**small | {"download": 10**18}, host=10**18, flops=1.0, seconds={})
    assert {found(cost=large)[check].state for check in ("memory", "disk")} == {"problem"}
    assert 10**8 < doctor.available_memory() < 10**14


def test_outside_a_project_the_remote_is_a_problem(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert found()["DVC remote"].state == "problem"


def test_a_matrix_product_is_measured():
    assert 1e8 < doctor.measured_flops_per_s("cpu", "float32", seconds=0.01) < 1e15


def test_sizes_and_durations_read_well():
    assert [doctor.size(n_bytes) for n_bytes in (2_773_504, 26_001_730_560)] == ["2.8 MB", "26.0 GB"]
    assert [doctor.duration(seconds) for seconds in (5, 120, 7200)] == ["5 s", "2 min", "2.0 h"]


def type_(monkeypatch, capsys, *words):
    return call(monkeypatch, capsys, cli.main, "doctor", *words)


@pytest.mark.skipif(not (ROOT / "models/demo").is_dir(), reason="models/demo is not pulled: dvc pull models.dvc")
def test_the_demo_is_ready_to_run(project, monkeypatch, capsys):
    (project / "models").symlink_to(ROOT / "models")
    shutil.copy(DEMO, "params.yaml")
    code, out, err = type_(monkeypatch, capsys)
    assert (code, err) == (0, "")
    for line in ("Python ", "PyTorch ", "disk ", "model ", "time "):
        assert f"\n{line}" in f"\n{out}"
    code, out, _ = type_(monkeypatch, capsys, "--json")
    told = json.loads(out)
    assert told["estimate"]["model"] == 4 * 693_376
    assert {each["state"] for each in told["findings"]} <= {"ok", "note"}


def test_a_preset_is_found_by_its_name(project, hub, monkeypatch, capsys):
    Path("presets").mkdir()
    text = DEMO.read_text().replace("name: models/demo/model", "name: google/gemma-2-9b-it")
    Path("presets/tiny.yaml").write_text(text.replace("path: models/demo/saes", "path: nowhere"))
    code, out, _ = type_(monkeypatch, capsys, "--preset", "tiny")
    assert code == 0
    assert "saes.narrow_2: its width is not known here" in out
    code, _, err = type_(monkeypatch, capsys, "--preset", "tinny")
    assert (code, err) == (2, "error: tinny: neither a file nor a preset; did you mean tiny?\n")


def test_a_device_that_is_not_there_is_a_problem(project, hub, monkeypatch, capsys):
    text = DEMO.read_text().replace("device: auto", "device: tpu")
    Path("mine.yaml").write_text(text)
    code, out, _ = type_(monkeypatch, capsys, "--params", "mine.yaml")
    assert code == 1
    assert "problem: device tpu: not available here" in out


@pytest.mark.skipif(not (ROOT / "data/demo").is_dir(), reason="data/demo is not pulled: dvc pull data.dvc")
def test_what_the_rows_cannot_tell_is_a_note(project, hub, monkeypatch, capsys):
    (project / "data").symlink_to(ROOT / "data")
    params = demo_params.demo()
    params["study"]["datasets"], params["datasets"]["people"]["n_test"] = ["sums", "people"], 8
    demo_params.write(params)
    _, out, _ = type_(monkeypatch, capsys)
    cue, told = [line for line in out.splitlines() if line.startswith("rows ")]
    assert "note: word overlap of question and context: this alone" in cue
    assert "note: The test rows of people are worth" in told
    assert told.endswith("nothing there has an interval.")
    params["datasets"]["people"]["path"] = "nowhere.jsonl"
    demo_params.write(params)
    _, out, _ = type_(monkeypatch, capsys)
    (told,) = [line for line in out.splitlines() if line.startswith("rows ")]
    assert "note: not read (" in told
    assert "nowhere.jsonl" in told
