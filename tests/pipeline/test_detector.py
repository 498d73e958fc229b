"""What a person may ask of a saved probe; tests/pipeline/test_end_to_end.py holds that its scores are the study's."""

import io
import json

import numpy as np
import pytest
from test_extraction import CHAT, save_checkpoint

import demo_params
from commands import call
from sae_transfer import cli
from sae_transfer.cli import score_command
from sae_transfer.core import paths
from sae_transfer.core.errors import UserError
from sae_transfer.data import prompt_templates
from sae_transfer.model import extraction, loading
from sae_transfer.pipeline.detector import Detector, Fired, Verdict
from sae_transfer.pipeline.study import Study
from sae_transfer.probing import probe_files
from sae_transfer.probing.probe import Probe

PARAMS = demo_params.demo(
    study={"datasets": ["alpha", "beta"], "saes": ["narrow_2"]},
    model={"name": "models/demo/model", "layers": [2], "device": "cpu"},
    saes={"narrow_2": {"layer": 2, "path": "models/demo/saes/narrow_2"}},
    datasets={
        name: {"loader": "table", "path": f"{name}.jsonl", "n_train": 4, "n_test": 4} for name in ("alpha", "beta")
    },
)


def probe(kind, features, *, rank=0, selected=True, n_train=8):
    ids = np.array(features) if features else None
    return Probe(kind, "sparse_n", np.ones(len(features) or 4), 0.0, ids, rank=rank, selected=selected, n_train=n_train)


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo_params.write(PARAMS)
    saved = [
        *(probe("sparse_1", [5 + i], rank=i + 1, selected=i == 0) for i in range(2)),
        *(probe("sparse_n", list(range(n)), selected=n == 4) for n in (2, 4)),
        probe("sparse_n", [1, 2], n_train=4),
        *(probe("shuffled_labels", [1]) for _ in range(2)),
    ]
    probe_files.write(paths.PROBES / "narrow_2/alpha.safetensors", saved)
    probe_files.write(paths.PROBES / "layer_2/alpha.safetensors", [probe("residual", [])])
    return Study.open()


def chosen(study, kind, rank=None, n_features=None):
    return study.probe("narrow_2", "alpha", kind, rank=rank, n=n_features)


def test_the_probe_that_the_training_data_chose_is_taken_unless_another_is_asked_for(study):
    assert list(chosen(study, "sparse_1").feature_ids) == [5]
    assert list(chosen(study, "sparse_1", rank=2).feature_ids) == [6]
    assert len(chosen(study, "sparse_n").feature_ids) == 4
    assert len(chosen(study, "sparse_n", n_features=2).feature_ids) == 2
    assert chosen(study, "sparse_n", n_features=2).n_train == 8  # the probe of the matched size is no second choice


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("narrow_2", "alpha", "sparse"), "probe 'sparse' is unknown; did you mean sparse_n or sparse_1?"),
        (("narrow_2", "alpha", "shuffled_labels"), "probe 'shuffled_labels' is unknown; known: mean_difference, "),
        (("narrow_2", "alpha", "residual"), "narrow_2, alpha: no residual probe here, but sparse_1 and sparse_n"),
        (("narrow_2", "alhpa", "sparse_n"), "dataset 'alhpa' is not in study.datasets; did you mean alpha?"),
        (("narow_2", "alpha", "sparse_n"), "space 'narow_2' is unknown; did you mean narrow_2?"),
        (("narrow_2", "beta", "sparse_n"), "artifacts/probes/narrow_2/beta.safetensors: not found; `dvc repro`"),
    ],
)
def test_what_is_not_there_is_said_before_a_model_is_loaded(study, words, message):
    space, train, kind = words
    with pytest.raises(UserError) as caught:
        Detector(study, train, kind, space)
    assert str(caught.value).startswith(message)


def test_a_rank_or_n_that_was_not_fitted_names_those_that_were(study):
    with pytest.raises(UserError, match="narrow_2, alpha: no sparse_1 probe with rank = 3; there are 1, 2"):
        chosen(study, "sparse_1", rank=3)
    with pytest.raises(UserError, match="narrow_2, alpha: no sparse_n probe with N = 3; there are 2, 4"):
        chosen(study, "sparse_n", n_features=3)


# the chat template


@pytest.fixture
def with_model(study, tmp_path):
    """The study with a tiny model that has a chat template, and a residual probe of its width."""
    save_checkpoint(tmp_path / "models/demo/model", "gemma2", chat_template="{{ bos_token }} " + CHAT)
    weights = np.random.default_rng(0).normal(size=16)
    fitted = Probe("residual", "residual", weights, 0.1, n_train=8)
    probe_files.write(paths.PROBES / "layer_2/alpha.safetensors", [fitted])
    return study, fitted


def by_hand(study, fitted, prompts, chat):
    params = study.params.model.model_copy(update={"chat_template": chat})
    stream = extraction.residual_stream(*loading.load_model(params), prompts, params)[2]
    return fitted.score(stream).tolist()


@pytest.mark.parametrize(
    ("template", "of_model", "chat"),
    [
        ("default_chat", False, True),
        ("default_plain", True, False),
        ("default", True, True),  # which leaves it to the model's params
        ("default", False, False),
    ],
)
def test_prompts_go_through_the_chat_template_as_the_training_sets_own_do(
    with_model, monkeypatch, capsys, template, of_model, chat
):
    model = PARAMS["model"] | {"chat_template": of_model}
    alpha = PARAMS["datasets"]["alpha"] | {"template": template}
    demo_params.write(PARAMS | {"model": model, "datasets": PARAMS["datasets"] | {"alpha": alpha}})
    _, fitted = with_model
    prompts = ["w1 w2 w3", "w4"]
    words = ["score", "--train", "alpha", "--probe", "residual", "--json", *(w for p in prompts for w in ("--text", p))]
    code, out, _ = call(monkeypatch, capsys, cli.main, *words)
    assert code == 0
    found = [json.loads(line)["score"] for line in out.splitlines()]
    expected = {is_chat: by_hand(Study.open(), fitted, prompts, is_chat) for is_chat in (True, False)}
    assert found == expected[chat]
    assert expected[True] != expected[False]  # or the test is idle


def test_another_template_brings_its_own_chat_flag(with_model, monkeypatch, capsys):
    study, fitted = with_model
    words = ("score", "--train", "alpha", "--probe", "residual", "--json", "--text", "w1 w2", "--template")
    scores = {}
    for template in ("default", "default_chat"):
        _, out, _ = call(monkeypatch, capsys, cli.main, *words, template)
        scores[template] = [json.loads(out)["score"]]
    assert scores["default"] == by_hand(study, fitted, ["w1 w2"], chat=False)
    assert scores["default_chat"] == by_hand(study, fitted, ["w1 w2"], chat=True)
    code, _, error = call(monkeypatch, capsys, cli.main, *words, "defualt")
    assert code == 2
    assert error.startswith("error: prompt template 'defualt' is unknown; did you mean default ")


def test_the_chat_flag_of_the_call_stands_before_the_models(with_model):
    study, fitted = with_model
    for chat in (True, False, None):
        (found,) = Detector(study, "alpha", "residual", chat=chat)(["w1 w2"])
        assert [found.score] == by_hand(study, fitted, ["w1 w2"], bool(chat))
        assert found.answerable == (found.probability >= 0.5)
        assert found.fired == ()


# the command


def test_prompts_come_finished_or_as_question_and_context(tmp_path):
    rows = [{"prompt": "as it is"}, {"question": "Who?", "context": "A passage."}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = ["as it is", prompt_templates.render("terse", "A passage.", "Who?")]
    assert list(score_command._prompts(path, "terse", wanted=True)) == wanted
    path = tmp_path / "rows.txt"
    path.write_text("one\n\ntwo\n")
    assert list(score_command._prompts(path, "terse", wanted=True)) == ["one", "two"]
    path = tmp_path / "rows.csv"
    path.write_text("text\nsomething\n")
    with pytest.raises(UserError, match="line 2: neither `prompt` nor `question`"):
        list(score_command._prompts(path, "terse", wanted=True))


@pytest.mark.parametrize(
    ("words", "typed", "message"),
    [
        ((), "", "--train is missing; name one of alpha, beta"),
        (("--train", "alpha"), "", "no prompts; give --text, a file, or lines on stdin"),
        (("--train", "alpha", "none.jsonl"), "", "none.jsonl: not found"),
        (("--train", "alpha", "--probe", "text"), "hello\n", "probe 'text' is unknown; known: mean_difference"),
    ],
)
def test_a_mistyped_command_gets_one_line(study, monkeypatch, capsys, words, typed, message):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    code, out, error = call(monkeypatch, capsys, cli.main, "score", *words)
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_verdicts_read_well_in_a_terminal():
    fired = tuple(Fired(i, 1.0, 0.5 - i / 10) for i in range(7))
    told = list(score_command._as_lines([Verdict("a\nlong " * 40, 1.0, 0.731, True, fired)]))
    assert told[1].startswith("0.731  answerable    ... ")
    assert "\n" not in told[1]
    assert told[2].strip() == "0 (+0.50), 1 (+0.40), 2 (+0.30), 3 (+0.20), 4 (+0.10) and 2 more"
