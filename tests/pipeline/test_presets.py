"""The presets are whole, consistent and name what exists; `preset use` loses nothing and invents nothing."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import tiny
from commands import call
from sae_transfer import cli
from sae_transfer.core import files
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import read_yaml
from sae_transfer.data.example import Example
from sae_transfer.data.loaders.loader_registry import LOADERS
from sae_transfer.data.prompt_templates import find
from sae_transfer.model import pins, saes
from sae_transfer.model.saes import layer_of
from sae_transfer.pipeline import checks, presets
from sae_transfer.pipeline.params import Params

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
LARGE = [name for name in NAMES if name != "demo"]
COMMIT = "c" * 40


def raw(name):
    return read_yaml(ROOT / f"presets/{name}.yaml")


def read(name):
    return Params.read(ROOT / f"presets/{name}.yaml")


def datasets(params):
    return {name: params.datasets[name] for name in params.study.datasets}


def test_the_presets_of_the_project_are_there():
    assert NAMES == [
        "demo",
        "gemma-2-2b",
        "gemma-2-9b-it",
        "gemma-2-9b-it-wide",
        "gemma-3-12b-it",
        "gemma-3-27b-it",
        "gemma-3-4b-it",
        "gpt2-small",
        "llama-3.1-8b-instruct",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_every_section_that_the_demo_has(name):
    assert list(raw(name)) == list(raw("demo"))
    for section in ("probe", "transfer"):
        assert list(raw(name)[section]) == list(raw("demo")[section])


@pytest.fixture
def any_file_will_do(monkeypatch):
    """Loaders that take the file's name for 1,000 rows of each label: what is in it is not what is tested."""

    def rows(path, _params):
        return [
            Example(f"{path.name}:{i}", f"{path.name} {i}", f"{path} {i}", f"{path} {i}?", i % 2, None, path.name)
            for i in range(2000)
        ]

    for name, loader in LOADERS.items():
        monkeypatch.setitem(LOADERS, name, replace(loader, read=rows))


def refusal(params):
    """What is wrong with the study, None if nothing is."""
    try:
        checks.check(params)
    except UserError as error:
        return str(error)
    return None


def bring(params):
    """Makes the files that are missing, one by one, as the refusals name them; returns them."""
    missing = set()
    while message := refusal(params):  # each names one file and what brings it
        path, remedy = re.fullmatch(r"(?:.* )?(\S+): not found; (.*)", message).groups()
        assert remedy.startswith(("`dvc pull ", "`sae-transfer data fetch ", "`sae-transfer preset pin`")), message
        assert path not in missing
        missing.add(path)
        if Path(path) == pins.FILE:
            files.write_json(pins.FILE, {pins.key(*each): "unpinned" for each in presets.from_hub(params)})
        elif Path(path).suffix:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text("{}")
        else:
            Path(path).mkdir(parents=True)
    return missing


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_in_order_once_its_files_are_there(name, tmp_path, monkeypatch, any_file_will_do):
    monkeypatch.chdir(tmp_path)
    missing = bring(read(name))
    if name == "demo":
        assert missing >= {"models/demo/model", "models/demo/saes/wide_3", "data/demo/people.jsonl"}
    else:
        assert missing == {
            "pins/hub.json",
            "data/external/squad/train-v2.0.json",
            "data/external/squad/dev-v2.0.json",
            "data/external/idk/ACE-whQA-has-answer.json",
            "data/external/idk/ACE-whQA-IDK-non-competitive.json",
            "data/external/boolq/train_full.json",
            "data/external/boolq/dev_full.json",
            "data/paper/equation.jsonl",
            "data/paper/celebrity.jsonl",
        }


def sae_of(release, id_):
    return next(sae for sae in saes.registry()[release]["saes"] if sae["id"] == id_)


@pytest.mark.parametrize("name", LARGE)
def test_every_sae_is_one_that_saelens_lists_for_this_model_and_layer(name):
    params = read(name)
    assert set(params.study.saes) == set(params.saes)
    for sae, chosen in params.saes.items():
        listed = sae_of(chosen.release, chosen.id)
        assert saes._short(saes.registry()[chosen.release]["model"]) == saes._short(params.model.name)
        layer = re.search(r"(?:layer_|blocks\.)(\d+)", chosen.id)[1]
        assert chosen.layer == (layer_of(chosen.id) if "hook" in chosen.id else int(layer))
        assert str(chosen.layer) in sae
        assert listed["path"]


def test_an_sae_that_saelens_does_not_list_is_seen():
    with pytest.raises(StopIteration):
        sae_of("gemma-scope-9b-it-res-canonical", "layer_21/width_131k/canonical")


def test_the_papers_study_is_the_papers():
    params = read("gemma-2-9b-it")
    model = params.model
    assert (model.name, model.layers, model.dtype) == ("google/gemma-2-9b-it", (20, 31), "bfloat16")
    assert (model.chat_template, model.position) == (True, "last")
    assert [(sae.release, sae.id) for sae in params.saes.values()] == [
        ("gemma-scope-9b-it-res-canonical", f"layer_{layer}/width_131k/canonical") for layer in (20, 31)
    ]
    rows = {name: (dataset.n_train.total, dataset.n_test.total) for name, dataset in datasets(params).items()}
    assert rows.pop("squad") == (2000, 1800)
    assert {name: sum(both) for name, both in rows.items()} == {
        "idk": 484,
        "boolq": 2000,
        "equation": 2000,
        "celebrity": 600,
    }
    assert all(train == test for train, test in rows.values())
    assert params.transfer.whole is True
    assert len(datasets(params)["squad"].variations) >= 10
    by_label = [datasets(params)["idk"].n_train, datasets(params)["idk"].n_test]
    assert [(quota.answerable, quota.unanswerable) for quota in by_label] == [(119, 123)] * 2


@pytest.mark.parametrize("name", NAMES)
def test_the_matched_size_fits_every_dataset(name):
    params = read(name)
    smallest = min(2 * min(each.n_train.by_label().values()) for each in datasets(params).values())
    assert params.probe.matched_n_train <= smallest


@pytest.mark.parametrize("name", NAMES)
def test_only_models_with_a_chat_template_are_asked_for_one(name):
    params = read(name)
    tuned = params.model.name.casefold().endswith(("-it", "-instruct"))
    assert params.model.chat_template == tuned
    asked = {find(variation).chat for dataset in datasets(params).values() for variation in dataset.variations}
    assert tuned or True not in asked
    if tuned:
        assert {True, False} <= asked


# The command


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A git repository with the presets, in which params.yaml is committed, and a hub that is out of reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    Path("params.yaml").write_text((ROOT / "presets/demo.yaml").read_text() + "# mine\n")
    git("init", "--quiet")
    git("add", "params.yaml")
    git("-c", "user.name=n", "-c", "user.email=e@e", "commit", "--quiet", "-m", "m")
    return tmp_path


def git(*words):
    subprocess.run(["git", *words], check=True, capture_output=True)


@pytest.fixture
def type_(project, monkeypatch, capsys):
    return lambda *words: call(monkeypatch, capsys, cli.main, "preset", *words)


def pinned():
    return json.loads(pins.FILE.read_text())


def test_use_writes_params_and_unpinned_pins_where_the_hub_is_out_of_reach(type_):
    code, out, err = type_("use", "gemma-2-9b-it")
    assert code == 0
    assert Path("params.yaml").read_text() == (ROOT / "presets/gemma-2-9b-it.yaml").read_text()
    unpinned = {"google/gemma-2-9b-it": "unpinned", "google/gemma-scope-9b-it-res": "unpinned"}
    assert pinned() == unpinned
    assert "params.yaml is the preset gemma-2-9b-it" in out
    assert "warning: not pinned: google/gemma-2-9b-it: the hub cannot be reached" in err
    assert presets.unpinned(Params.read()) == sorted(unpinned)
    assert presets.in_use() == "gemma-2-9b-it"


def test_use_overwrites_no_edit_that_git_does_not_hold(type_):
    edited = Path("params.yaml").read_text() + "# an idea of tonight\n"
    Path("params.yaml").write_text(edited)
    code, out, err = type_("use", "gpt2-small")
    assert (code, out) == (2, "")
    assert (
        "params.yaml has edits that are not committed; commit them, or `sae-transfer preset use gpt2-small --f" in err
    )
    assert Path("params.yaml").read_text() == edited
    assert not Path("pins").exists()
    assert type_("use", "gpt2-small", "--force")[0] == 0
    assert type_("use", "demo")[0] == 0  # a preset as it is can go, committed or not


def test_use_overwrites_nothing_unknown_outside_of_git(type_, project):
    (project / ".git").rename(project / "no-git")
    assert type_("use", "demo")[0] == 2
    Path("params.yaml").unlink()
    assert type_("use", "demo")[0] == 0
    assert not Path("pins").exists()  # the demo takes nothing from the hub


def test_an_unknown_preset_names_the_closest(type_):
    code, _, err = type_("use", "gemma-2-9b")
    assert code == 2
    assert err.startswith("error: preset 'gemma-2-9b' is unknown; did you mean ")
    assert "gemma-2-9b-it" in err
    assert err.count("\n") == 1


def test_check_says_what_is_unpinned(type_, monkeypatch, capsys, any_file_will_do):
    type_("use", "gpt2-small")
    bring(Params.read())
    monkeypatch.setattr("sys.argv", ["sae-transfer", "check"])
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert "openai-community/gpt2 is unpinned: another run may take another version; `sae-transfer preset pin`" in out
    assert "params.yaml is in order" in out


def test_make_takes_a_preset():
    command = ["make", "--dry-run", "--directory", str(ROOT), "repro"]
    plain, other = (
        subprocess.run([*command, *words], capture_output=True, text=True, check=True).stdout
        for words in ([], ["PRESET=gpt2-small"])
    )
    assert "sae-transfer preset" not in plain
    lines = [line for line in other.splitlines() if line.startswith("sae-transfer")]
    assert lines == ["sae-transfer run gpt2-small"]


def test_list_shows_each_preset(type_):
    code, out, _ = type_("list")
    blocks = {block.split()[0]: block for block in out.split("\n\n")}
    assert code == 0
    assert sorted(blocks) == NAMES
    assert "not gated" in blocks["gpt2-small"]
    for part in (
        "google/gemma-2-9b-it in bfloat16, layers 20, 31; gated",
        "gemma-scope-9b-it-res-canonical layer_31/width_131k/canonical",
        "squad, idk, boolq, equation, celebrity",
        "58,284 prompts",
    ):
        assert part in blocks["gemma-2-9b-it"]
    type_("use", "demo", "--force")
    assert "demo (in use)" in type_("list")[1]


@pytest.fixture
def reachable(project, monkeypatch):
    """A hub that names a commit for every repository; its server."""
    commits = {}

    def answer(path):
        repo = path.removeprefix("/api/models/").partition("/revision/")[0]
        return 200, {"Content-Type": "application/json"}, json.dumps({"id": repo, "sha": commits["main"]}).encode()

    commits["main"] = COMMIT
    with tiny.serving(answer) as server:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        yield commits


def test_pins_are_what_the_hub_says_and_stay_until_they_are_updated(type_, reachable):
    code, out, err = type_("use", "gpt2-small")
    repositories = ["jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs", "openai-community/gpt2"]
    assert (code, err) == (0, "")
    assert pinned() == dict.fromkeys(repositories, COMMIT)
    assert f"pins/hub.json: openai-community/gpt2 {COMMIT}" in out
    reachable["main"] = "d" * 40
    for command in (["use", "gpt2-small"], ["pin"]):  # hours of results hang on them
        type_(*command)
        assert pinned() == dict.fromkeys(repositories, COMMIT)
    type_("pin", "--update")
    assert pinned() == dict.fromkeys(repositories, "d" * 40)
    assert presets.unpinned(Params.read()) == []


def test_an_update_out_of_reach_keeps_what_was_pinned(type_, reachable, monkeypatch):
    type_("use", "gpt2-small")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _, _, err = type_("pin", "--update")
    assert "cannot be reached" in err
    assert set(pinned().values()) == {COMMIT}


def test_a_revision_that_params_ask_for_is_pinned_under_its_name(project, reachable):
    params = raw("gpt2-small")
    params["model"]["revision"] = "v1"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    presets.pin(Params.read())
    assert sorted(pinned()) == [
        "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs",
        "openai-community/gpt2@v1",
    ]
