"""When two datasets share a row: the same context and question, in whatever letters."""

import pandas as pd
import pytest

from sae_transfer.data.overlap import normalised, overlapping


def rows(*pairs):
    return pd.DataFrame(pairs, columns=["context", "question"])


SEEN = rows(("A passage.", "Who?"), ("", "What is 2 + 2?"), ("Straße", "wo?"))


@pytest.mark.parametrize(
    ("context", "question", "shared"),
    [
        ("A passage.", "Who?", True),
        ("a PASSAGE.", "who?", True),
        ("  A\n passage. ", "Who?\t", True),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A} passage.", "Who?", True),  # another form of the same letter
        ("STRASSE", "Wo?", True),
        ("A passage.", "Who", False),
        ("A passage", "Who?", False),
        ("", "Who?", False),
        ("A passage.Who?", "", False),
        ("", "what is 2 + 2?", True),
        ("What is 2 + 2?", "", False),
        ("A passage.", "what is 2 + 2?", True),  # asked without its passage there
    ],
)
def test_a_row_is_shared_where_context_and_question_are_the_same(context, question, shared):
    assert overlapping(rows((context, question)), SEEN).tolist() == [shared]


def test_a_question_that_another_dataset_asks_without_its_passage_is_the_same_row_both_ways():
    with_passage, without = rows(("Rollo was Norse.", "Who was Rollo then?")), rows(("", "who was Rollo then?"))
    assert overlapping(with_passage, without).tolist() == overlapping(without, with_passage).tolist() == [True]
    assert overlapping(rows(("Of a dog.", "Who was Rollo then?")), with_passage).tolist() == [False]


def test_every_row_is_told_in_its_place():
    found = overlapping(rows(("x", "y"), ("a  passage.", "WHO?"), ("x", "y")), SEEN)
    assert (found.tolist(), found.dtype) == ([False, True, False], bool)
    assert overlapping(rows(), SEEN).tolist() == []
    assert overlapping(SEEN, rows()).tolist() == [False] * 3


def test_normalising_again_changes_nothing():
    for text in ("  A\N{NO-BREAK SPACE}b\n", "\N{LATIN SMALL LIGATURE FI}nd", "Straße", "ǅ"):
        assert normalised(normalised(text)) == normalised(text)
