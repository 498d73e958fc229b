import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from planted import QUICK, balanced, groups_of
from sae_transfer.probing import text_probes
from sae_transfer.probing.rows import Rows
from sae_transfer.stats.roc import auc

FILLER = "the a of in on some other thing people went there and came back".split()


def asked(seed, n=120, cue=None, longer=0, echo=False):
    """(rows, labels): random questions on random contexts; a cue of each kind is planted where it is wanted."""
    rng = np.random.default_rng(seed)
    labels = balanced(rng, n)
    prompts, contexts, questions = [], [], []
    for label in labels:
        context = " ".join(rng.choice(FILLER, 12 + longer * label))
        words = list(rng.choice(FILLER, 5)) if not echo else [f"word{i}" for i in rng.integers(0, 500, 4)]
        if echo and label:
            words = list(rng.choice(context.split(), 4))
        if cue is not None:
            words.append(cue[label])
        question = " ".join(words) + "?"
        contexts.append(context)
        questions.append(question)
        prompts.append(f"{context}\n{question}")
    return text_probes.text_rows(prompts, contexts, questions), labels


def areas(train, test):
    (rows, labels), (other, truth) = train, test
    found = text_probes.text_probes(rows, labels, groups_of(len(labels), 2), 0, QUICK)
    assert [(probe.kind, probe.input, probe.family) for probe in found] == [
        ("text", family, family) for family in ("tfidf", "length", "overlap")
    ]
    return {probe.family: auc(probe.score(other[probe.input]), truth) for probe in found}


def test_a_word_that_gives_the_label_away_is_found_by_tfidf_alone():
    found = areas(asked(0, cue=("perhaps", "surely")), asked(1, cue=("perhaps", "surely")))
    assert found["tfidf"] > 0.97
    assert abs(found["length"] - 0.5) < 0.15


def test_a_longer_context_is_found_by_length():
    found = areas(asked(0, longer=8), asked(1, longer=8))
    assert found["length"] > 0.99


def test_shared_words_are_found_by_overlap():
    found = areas(asked(0, echo=True), asked(1, echo=True))
    assert found["overlap"] > 0.99


def test_text_that_says_nothing_is_worth_one_half():
    found = [areas(asked(seed), asked(seed + 100)) for seed in range(4)]
    for family in ("tfidf", "length", "overlap"):
        assert abs(np.mean([each[family] for each in found]) - 0.5) < 0.08


def test_what_the_text_probes_read():
    rows = text_probes.text_rows(["p", "q"], ["Anna met Ben.", ""], ["Whom did Anna meet? Anna!", "2 + 2?"])
    assert rows["length"].tolist() == [[3, 5], [0, 2]]
    np.testing.assert_allclose(rows["overlap"][:, 0], [1 / 4, 0])  # whom, did, anna, meet
    assert rows["tfidf"].tolist() == ["p", "q"]


def test_tfidf_is_scikit_learns_with_words_learnt_on_the_training_rows_alone():
    rows, labels = asked(0)
    train = Rows(rows["tfidf"], labels, groups_of(len(labels), 2))
    (probe,) = text_probes.tfidf(train, 0, QUICK)
    vectorizer = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]").fit(rows["tfidf"])
    unseen = np.array(["a zebra went there"], dtype=object)
    expected = vectorizer.transform(unseen) @ probe.weights + probe.bias
    np.testing.assert_allclose(probe.score(unseen), expected)
    assert "zebra" not in probe.vectorizer.vocabulary_


@pytest.mark.parametrize("prompts", [["same"] * 40, [f"word{i}" for i in range(40)]])
def test_prompts_that_are_all_alike_or_share_no_word_are_worth_one_half(prompts):
    labels = np.arange(40) % 2
    found = text_probes.text_probes(text_probes.text_rows(prompts, [""] * 40, prompts), labels, groups_of(40), 0, QUICK)
    other = text_probes.text_rows(["zebra"] * 40, [""] * 40, ["zebra"] * 40)
    for probe in found:
        assert auc(probe.score(other[probe.input]), labels) == 0.5
