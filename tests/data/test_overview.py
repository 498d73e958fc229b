"""What `data check` says of datasets, right ones and wrong ones."""

import json
from pathlib import Path

import pytest
import yaml
from test_extraction import CONTEXT, save_checkpoint

import demo_params
from commands import call
from sae_transfer import cli
from sae_transfer.core.params_section import parse
from sae_transfer.data import overview
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.data.overview import TokenCounts
from sae_transfer.model import token_counts
from sae_transfer.model.model_params import ModelParams
from sae_transfer.pipeline import counted_tokens, study_cost
from sae_transfer.pipeline.params import Params

SECTION = {"loader": "table", "path": "mine.jsonl", "n_train": 4, "n_test": 4}
ROWS = [{"context": f"w{i} w1", "question": f"w{i} w2 w3", "label": i % 2} for i in range(10)]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("mine.jsonl", ROWS)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), "gemma2")


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def found(rows=ROWS, count=None, **changes):
    write("mine.jsonl", rows)
    return overview.describe_dataset("mine", parse(DatasetParams, SECTION | changes, "datasets.mine"), 0, count)


def test_sizes_and_lengths(project):
    told = found(variations=["terse"])
    assert (told.rows, told.answerable, told.unanswerable, told.groups) == (10, 5, 5, 10)
    assert (told.n_train, told.n_test, told.prompts) == (4, 4, 16)
    lengths = sorted([len("Passage: w1 w1\nQuestion: w1 w2 w3\nAnswer:")] * 8 + [len("w1 w1\nw1 w2 w3")] * 8)
    assert told.characters == ((lengths[7] + lengths[8]) / 2, lengths[-1])
    assert told.tokens is None


def test_what_is_repeated_is_counted(project):
    same = {"context": "W0  w1", "question": "w0 W2 w3", "label": 0}  # of the first row, in other letters
    told = found([*ROWS, same, same | {"label": 1}, {"context": "w20", "question": "w0 w2 w3", "label": 1}])
    assert (told.repeated_questions, told.repeated_rows, told.contradictions) == (3, 2, 1)
    plain = found()
    assert (plain.repeated_questions, plain.repeated_rows, plain.contradictions) == (0, 0, 0)


def test_tokens_are_counted_without_weights(project, model, monkeypatch):
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)
    count = token_counts.counter(ModelParams(name=str(model), layers=(1,)))
    counts, last = count(["w1 w2", "w3 what is", "w4 " * CONTEXT], [None] * 3)
    assert counts == TokenCounts(4, CONTEXT + 1, CONTEXT, 1, CONTEXT + 8, 2)
    assert [len(tokens) for tokens in last] == [3, 3, 3]
    assert (last[0][1:], last[2]) == (["w1", "w2"], ["w4"] * 3)
    told = found(count=count)
    assert told.tokens.beyond_context == 0
    assert told.tokens.unknown == 8 * 3  # Passage:, Question:, Answer:


def write_params(model, **datasets):
    section = {"name": str(model), "layers": [1]}
    study = {"datasets": list(datasets), "saes": []}
    demo_params.write(demo_params.demo(study=study, model=section, saes={}, datasets=datasets))


@pytest.fixture
def check(project, monkeypatch, capsys):
    return lambda *words: call(monkeypatch, capsys, cli.main, "data", "check", *words)


def test_every_dataset_is_described(check, model):
    write_params(model, mine=SECTION)
    code, out, err = check()
    assert (code, err) == (0, "")
    assert "mine\n  10 rows: 5 answerable, 5 unanswerable, in 10 groups\n" in out
    assert f"0 prompts beyond the context of {CONTEXT}; 24 of 72 tokens unknown" in out
    code, out, _ = check("--json")
    assert json.loads(out)["datasets"]["mine"]["tokens"]["unknown"] == 24
    Path("params.yaml").rename("other.yaml")
    assert check("--params", "other.yaml")[0] == 0


def test_datasets_are_named_as_data_fetch_takes_them(check, model):
    write_params(model, mine=SECTION, other=SECTION | {"n_train": 400})
    code, out, err = check("mine")
    assert (code, err) == (0, "")
    assert "mine\n" in out
    assert "other" not in out
    assert check("mine", "other")[0] == 2
    assert check("mien") == (2, "", "error: dataset mien: not in the params; did you mean mine?\n")


def test_two_prompts_of_each_label_are_shown_with_the_tokens_at_their_end(check, model):
    long = [row | {"context": f"{row['context']} " + "w1 " * 30} for row in ROWS]
    write("long.jsonl", long)
    write_params(model, mine=SECTION, long=SECTION | {"path": "long.jsonl"})
    out = check()[1]
    assert out.count("\n  answerable: ") == out.count("\n  unanswerable: ") == 4
    shown = [line for line in out.splitlines() if line.startswith("  answerable: 'Passage: w")]
    assert shown[0].endswith(r"w1\nQuestion: w" + shown[0].split("Question: w")[1])
    assert "\\nAnswer:'  [ends in " in shown[0]
    assert "' ... '" in shown[2]


def test_what_was_counted_is_what_the_doctor_takes_until_something_changes(check, model, project):
    write_params(model, mine=SECTION)
    params = Params.read()
    assert counted_tokens.read(params) == {}
    check()
    total, longest = counted_tokens.read(params)["mine"]
    assert (total, longest) == (72, 9)
    assert study_cost.estimate_cost(params, 1e9).tokens == 72
    assert study_cost.estimate_cost(params, 1e9).counted
    for change in ({"datasets": {"mine": SECTION | {"n_train": 2}}}, {"seed": 1}):
        assert counted_tokens.read(demo_params.parsed(yaml.safe_load(Path("params.yaml").read_text()) | change)) == {}
    write("mine.jsonl", [row | {"question": "w1"} for row in ROWS])
    assert counted_tokens.read(params) == {}
    assert not study_cost.estimate_cost(params, 1e9).counted
    Path("artifacts/tokens.json").write_text('{"mine": 5}')
    assert counted_tokens.read(params) == {}


def test_what_is_wrong_with_one_dataset_does_not_hide_the_others(check, model):
    write("one_class.jsonl", [row | {"label": 1} for row in ROWS])
    wrong = {
        "one_class": SECTION | {"path": "one_class.jsonl"},
        "squad": {"loader": "squad", "path": "data/external/squad", "n_train": 4, "n_test": 4},
        "large": SECTION | {"n_train": 400},
    }
    write_params(model, **wrong, mine=SECTION)
    code, out, err = check()
    assert (code, err) == (2, "error: 3 of 4 datasets cannot be used: one_class, squad, large; see above\n")
    assert "a probe needs both classes" in out
    assert "data/external/squad: not found; `sae-transfer data fetch squad` brings it" in out
    assert "large\n  problem: dataset large: n_train needs 200" in out
    assert "mine\n  10 rows" in out
    code, out, _ = check("--json")
    assert code == 2
    assert "both classes" in json.loads(out)["datasets"]["one_class"]


def test_a_mistyped_key_of_a_dataset_is_told_before_any_is_described(check, model):
    write_params(model, mine=SECTION, typo=SECTION | {"n_trian": 4})
    said = "error: params.yaml: unknown key datasets.typo.n_trian; did you mean n_train?\n"
    assert check() == (2, "", said)


def test_rows_that_datasets_share_are_told(check, model):
    write_params(model, mine=SECTION, same=SECTION)
    code, out, _ = check()
    assert code == 0
    assert "test rows of same stand among mine's training rows: left out of mine to same.\n" in out


def test_without_a_tokenizer_the_rest_is_said_and_why(check, project):
    write_params("models/none", mine=SECTION)
    code, out, _ = check()
    assert code == 0
    assert "10 rows" in out
    assert "tokens are not counted: models/none: not found; `dvc pull models.dvc` brings it" in out
