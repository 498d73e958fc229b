"""What a person may ask of a saved probe; tests/test_end_to_end.py holds that its scores are the study's."""

import io
import json

import numpy as np
import pytest
import yaml

from commands import call
from sae_transfer import cli, detector, paths, probe_files, prompts
from sae_transfer.cli import score as command
from sae_transfer.probes import Probe
from sae_transfer.records import UserError
from test_cli import PARAMS


def probe(kind, features, *, rank=0, selected=True, n_train=8):
    ids = np.array(features) if features else None
    return Probe(kind, "sparse_n", np.ones(len(features) or 4), 0.0, ids, rank=rank, selected=selected, n_train=n_train)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    saved = [
        *(probe("sparse_1", [5 + i], rank=i + 1, selected=i == 0) for i in range(2)),
        *(probe("sparse_n", list(range(n)), selected=n == 4) for n in (2, 4)),
        probe("sparse_n", [1, 2], n_train=4),
        *(probe("shuffled_labels", [1]) for _ in range(2)),
    ]
    probe_files.write(paths.PROBES / "narrow_2/alpha", saved)
    probe_files.write(paths.PROBES / "layer_2/alpha", [probe("residual", [])])


def chosen(kind, rank=None, n_features=None):
    return detector._choose(detector._fitted("narrow_2", "alpha", PARAMS), kind, rank, n_features, "here")


def test_the_probe_that_the_training_data_chose_is_taken_unless_another_is_asked_for(project):
    assert list(chosen("sparse_1").feature_ids) == [5]
    assert list(chosen("sparse_1", rank=2).feature_ids) == [6]
    assert len(chosen("sparse_n").feature_ids) == 4
    assert len(chosen("sparse_n", n_features=2).feature_ids) == 2
    assert chosen("sparse_n", n_features=2).n_train == 8  # the probe of the matched size is no second choice


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("narrow_2", "alpha", "sparse"), "probe 'sparse' is unknown; did you mean sparse_n or sparse_1?"),
        (("narrow_2", "alpha", "residual"), "narrow_2, alpha: no residual probe here, but sparse_1 and sparse_n"),
        (("narrow_2", "alhpa", "sparse_n"), "dataset 'alhpa' is not in study.datasets; did you mean alpha?"),
        (("narow_2", "alpha", "sparse_n"), "space 'narow_2' is unknown; did you mean narrow_2?"),
        (("narrow_2", "beta", "sparse_n"), "artifacts/probes/narrow_2/beta/probes.safetensors: not found; `dvc repro`"),
    ],
)
def test_what_is_not_there_is_said_before_a_model_is_loaded(project, words, message):
    with pytest.raises(UserError) as caught:
        detector.score(["a prompt"], *words)
    assert str(caught.value).startswith(message)


def test_a_rank_or_n_that_was_not_fitted_names_those_that_were(project):
    with pytest.raises(UserError, match="here: no sparse_1 probe with rank = 3; there are 1, 2"):
        chosen("sparse_1", rank=3)
    with pytest.raises(UserError, match="here: no sparse_n probe with N = 3; there are 2, 4"):
        chosen("sparse_n", n_features=3)


def test_prompts_come_finished_or_as_question_and_context(tmp_path):
    rows = [{"prompt": "as it is"}, {"question": "Who?", "context": "A passage."}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted = ["as it is", prompts.render("terse", "A passage.", "Who?")]
    assert list(command._prompts(path, "terse", wanted=True)) == wanted
    path = tmp_path / "rows.txt"
    path.write_text("one\n\ntwo\n")
    assert list(command._prompts(path, "terse", wanted=True)) == ["one", "two"]
    path = tmp_path / "rows.csv"
    path.write_text("text\nsomething\n")
    with pytest.raises(UserError, match="line 2: neither `prompt` nor `question`"):
        list(command._prompts(path, "terse", wanted=True))


@pytest.mark.parametrize(
    ("words", "typed", "message"),
    [
        ((), "", "--train is missing; name one of alpha, beta"),
        (("--train", "alpha"), "", "no prompts; give --text, a file, or lines on stdin"),
        (("--train", "alpha", "none.jsonl"), "", "none.jsonl: not found"),
        (("--train", "alpha", "--probe", "text"), "hello\n", "probe 'text' is unknown; known: mean_difference"),
    ],
)
def test_a_mistyped_command_gets_one_line(project, monkeypatch, capsys, words, typed, message):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    code, out, error = call(monkeypatch, capsys, cli.main, "score", *words)
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_verdicts_read_well_in_a_terminal():
    fired = tuple(detector.Fired(i, 1.0, 0.5 - i / 10) for i in range(7))
    told = list(command._as_lines([detector.Verdict("a\nlong " * 40, 1.0, 0.731, True, fired)]))
    assert told[1].startswith("0.731  answerable    ... ")
    assert "\n" not in told[1]
    assert told[2].strip() == "0 (+0.50), 1 (+0.40), 2 (+0.30), 3 (+0.20), 4 (+0.10) and 2 more"
