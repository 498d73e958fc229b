"""What a person is told when the hub refuses: by the real clients, against a server on this machine."""

import json

import pytest

import tiny
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.model import hub, pins
from sae_transfer.model.loading import load_model
from sae_transfer.model.model_params import ModelParams, SaeParams
from sae_transfer.model.saes import load_sae

COMMIT, OTHER = "a" * 40, "b" * 40
INVALID = "Invalid credentials in Authorization header"
REFUSALS = {
    "gated": (401, {"X-Error-Code": "GatedRepo"}, r"gated; accept its licence at https://huggingface\.co/org/x"),
    "no such repository": (404, {"X-Error-Code": "RepoNotFound"}, "no such repository on the hub; correct the name"),
    "no token": (401, {}, "no such repository on the hub; .*set HF_TOKEN if it is private or gated"),
    "wrong token": (401, {"X-Error-Message": INVALID}, "the hub does not accept the token; set HF_TOKEN to a valid"),
    "weak token": (403, {"X-Error-Message": "no access"}, r"this token may not read it; .*/settings/tokens"),
    "no such revision": (404, {"X-Error-Code": "RevisionNotFound"}, "no revision main; see .*/org/x/commits/main"),
}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def served(monkeypatch):
    """Serves a hub that answers so; gives its server."""
    opened = []

    def start(answer):
        context = tiny.serving(answer)
        server = context.__enter__()
        opened.append(context)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        return server

    yield start
    for context in opened:
        context.__exit__(None, None, None)


def resolve(_folder):
    hub.resolve("org/x")


def model(folder):
    load_model(ModelParams(name="org/x", layers=(0,), device="cpu"))


def sae(folder):
    load_sae("s", SaeParams(layer=0, release="org/x", id="layer_0"))


@pytest.mark.parametrize("ask", [resolve, model, sae])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_one_line_that_says_what_to_do(served, monkeypatch, tmp_path, ask, refusal):
    status, headers, message = REFUSALS[refusal]
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody" if "token" in refusal and refusal != "no token" else "")
    server = served(lambda _path: (status, headers, b""))
    with pytest.raises(UserError, match=message) as caught:
        ask(tmp_path)
    assert "\n" not in str(caught.value)
    assert "hf_of_somebody" not in str(caught.value)
    assert server.asked


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (resolve, "org/x: the hub cannot be reached to ask for its commit"),
        (model, "the hub cannot be reached and its cache lacks org/x; .*hf download org/x`"),
        (sae, "the hub cannot be reached and its cache lacks org/x; .*hf download org/x`"),
    ],
)
@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_out_of_reach_is_one_line(monkeypatch, tmp_path, ask, message, offline):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # the client tries again for 20 s
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nowhere)
    template = nowhere + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(UserError, match=message):
        ask(tmp_path)


def test_an_error_that_is_not_the_hubs_has_no_remedy_of_the_hub():
    assert hub.remedy("org/x", "main", ValueError("something else")) is None


def test_the_commit_of_a_cached_file():
    assert hub.commit_of(f"/home/snapshots/hub/models--org--x/snapshots/{COMMIT}/sub/config.json") == COMMIT


def models(**commits):
    """A hub that knows these commits, by repository."""

    def answer(path):
        repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        commit = commits.get(repo.partition("?")[0].replace("/", "_"))
        if commit is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        found = {"id": repo, "sha": OTHER if revision.startswith("v2") else commit}
        return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()

    return answer


def test_a_name_is_resolved_to_the_commit_that_the_hub_says(served):
    served(models(org_x=COMMIT))
    assert hub.resolve("org/x") == COMMIT
    assert hub.resolve("org/x", "v2") == OTHER


# Pins


def test_pins_hold_what_the_hub_says_and_invent_nothing(served):
    server = served(models(org_x=COMMIT))
    found, reasons = pins.resolve([("org/x", None), ("org/x", "v2"), ("org/gone", None)], {})
    assert found == {"org/x": COMMIT, "org/x@v2": OTHER, "org/gone": "unpinned"}
    assert list(reasons) == ["org/gone"]
    assert "no such repository" in reasons["org/gone"]
    server.asked.clear()
    kept, _ = pins.resolve([("org/x", None)], {"org/x": OTHER, "org/old": COMMIT})
    assert (kept, server.asked) == ({"org/x": OTHER}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"org/x": "main"}', "org/x = 'main' is no commit; `sae-transfer preset pin --update`"),
        ('{"org/x": null}', "org/x = None is no commit"),
        ("[]", "expected {repository: commit}"),
        ('{"org/x":', "not valid JSON"),
    ],
)
def test_a_pins_file_with_anything_but_commits_is_refused(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=message):
        pins.read(tmp_path / "x.json")


def test_what_is_not_pinned_has_no_commit_and_must_be_named_where_a_study_uses_it(tmp_path):
    assert pins.commit("org/x", root=tmp_path) is None
    files.write_json(tmp_path / pins.FILE, {"org/x": COMMIT, "org/x@v2": OTHER, "org/y": "unpinned"})
    assert pins.commit("org/x", root=tmp_path) == pins.entry("org/x", root=tmp_path) == COMMIT
    assert pins.commit("org/x", "v2", tmp_path) == OTHER
    assert pins.commit("org/y", root=tmp_path) is pins.commit("org/z", root=tmp_path) is None
    assert pins.entry("org/y", root=tmp_path) == "unpinned"
    with pytest.raises(UserError, match="does not name org/z; run `sae-transfer preset pin`"):
        pins.entry("org/z", root=tmp_path)
