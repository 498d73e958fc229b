"""What tells a label without a model, and where the forms of datasets part."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from real_data import REAL, needs_real_data
from sae_transfer.core.params_section import parse
from sae_transfer.data import cues
from sae_transfer.data.loaders.loader_registry import DatasetParams, load
from sae_transfer.data.overlap import contents, shared


def table(rows, **columns):
    """Rows of (context, question, label); the prompt is the default template's."""
    made = pd.DataFrame(rows, columns=["context", "question", "label"])
    return made.assign(prompt=[f"Passage: {c}\nQuestion: {q}\nAnswer:" for c, q, _ in rows], **columns)


def noise(n=200, seed=0, end=":"):
    """Rows whose words and ends say nothing."""
    draw = np.random.default_rng(seed)
    words = [" ".join(f"w{i}" for i in draw.integers(0, 50, 8)) for _ in range(2 * n)]
    made = table([(words[i], words[n + i], i % 2) for i in range(n)])
    return made.assign(prompt=[f"{context} {end}" for context in made["context"]])


def test_the_share_of_words_that_stand_in_the_context():
    found = cues.word_overlap(["The cat sat.", "", "a b"], ["Where did THE cat sit?", "Who?", "?!"])
    assert found.tolist() == [2 / 5, 0, 0]


def test_the_table_has_the_auc_of_each_cue_alone():
    rows = {"a": noise(60), "b": noise(80, seed=1)}
    found = cues.cue_table(rows)
    assert list(found.columns) == ["dataset", "cue", "auc", "n"]
    assert found["n"].tolist() == [60, 60, 80, 80]
    for row in found[found["cue"].str.startswith("word overlap")].itertuples():
        of = rows[row.dataset]
        assert row.auc == pytest.approx(roc_auc_score(of["label"], cues.word_overlap(of["context"], of["question"])))


@pytest.mark.parametrize(
    ("prompt", "end"),
    [("Answer:", ":"), ("Who?", "?"), ("is true", "true"), ("say: \n", ": \n"), ("", ""), ("x = 5.", "."), ("\n", "")],
)
def test_what_a_prompt_ends_in(prompt, end):
    assert cues.ending(prompt) == end


def test_rows_that_say_nothing_are_not_warned_of():
    """Neither words that differ from row to row, nor twenty draws of chance."""
    for seed in range(20):
        assert cues.warnings({"a": noise(seed=seed), "b": noise(seed=seed + 100)}) == []
    own = noise().assign(prompt=[f"w{i}" for i in range(200)])
    assert cues.label_forms([cues.ending(prompt) for prompt in own["prompt"]], own["label"]) == 0


def test_an_end_that_tells_the_label_is_told():
    rows = noise()
    marks = np.where((rows["label"] == 1) & (np.arange(200) % 4 != 1), "?", ".")
    (told,) = cues.warnings({"a": rows.assign(prompt=rows["context"] + marks)})
    assert told == "a: how prompts end tells the label: '.' in 50% of answerable and 100% of unanswerable rows"


def test_a_context_that_one_label_lacks_is_told():
    rows = noise()
    rows.loc[(rows["label"] == 0) & (rows.index % 8 == 0), "context"] = " "
    told = cues.warnings({"a": rows})
    said = (
        "a: whether a row has a context tells the label: 'no context' in 0% of answerable and 25% of unanswerable rows"
    )
    assert said in told


def test_datasets_whose_prompts_end_otherwise_are_told():
    told = cues.warnings({"a": noise(), "b": noise(seed=1, end="?"), "c": noise(seed=2)})
    said = "b: its prompts end otherwise than those of a ('?' in 100% against ':' in 100%): a feature at the last token"
    assert len(told) == 1
    assert told[0].startswith(said)


def test_the_tokens_of_a_tokenizer_stand_for_words_where_they_are_at_hand():
    a, b = noise().assign(ends="<s>"), noise(seed=1).assign(ends="</s>")
    (told,) = cues.warnings({"a": a, "b": b})
    assert "'</s>' in 100% against '<s>' in 100%" in told


def test_a_few_rows_are_no_evidence():
    rows = table([(f"x{i} y{i}", f"x{i} y{i}" if i % 2 else f"z{i} z", i % 2) for i in range(6)])
    assert cues.warnings({"a": rows}) == []


def test_words_of_the_question_that_tell_the_label_are_told_with_the_mean():
    rows = table([(f"x{i} y{i}", f"x{i} y{i}" if i % 2 else f"z{i} z", i % 2) for i in range(100)])
    told = [note for note in cues.warnings({"a": rows, "b": noise()}) if note.startswith("word overlap")]
    assert "without a model, tells the label: AUC a 1.00 (mean of all datasets 0." in told[0]


def section(loader, path, **more):
    return parse(DatasetParams, {"loader": loader, "path": str(path), "n_train": 2, "n_test": 2, **more}, "datasets.d")


@needs_real_data
def test_squads_questions_in_selfaware_are_found_without_their_passages(tmp_path):
    rows = json.loads((REAL / "other/SelfAware.json").read_text())["example"]
    asked = [{"question": row["question"], "label": int(row["answerable"])} for row in rows]
    (tmp_path / "selfaware.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    squad = load("squad", section("squad", REAL / "squad-v2.0-dev-half.json"))[0]
    selfaware = load("selfaware", section("table", tmp_path / "selfaware.jsonl"))[0]
    texts = [pd.DataFrame([(row.context, row.question) for row in rows]) for rows in (selfaware, squad)]
    both = [contents(each.set_axis(["context", "question"], axis=1)) for each in texts]
    assert int(shared(*both).sum()) == 52
    assert int(shared(*both[::-1]).sum()) >= 52
