import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_transfer.core.errors import UserError
from sae_transfer.data.generators.celebrity import (
    BYSTANDERS,
    FACTS,
    PRIVATE,
    REPORT,
    REPORTS,
    generate,
    invented_people,
    real_people,
)

PEOPLE = {person.name: person for person in real_people() + invented_people()}


@pytest.fixture(scope="module")
def rows():
    return generate(600, 0)


def asked(row):
    """(subject, detail) by comparing the question with every way to ask."""
    found = [("fact", f) for f, (_, _, qs) in FACTS.items() if row.question in [q.format(p=row.group) for q in qs]]
    kinds = [(d, q.format(p=row.group, r=kind)) for d, (_, q, _) in REPORT.items() for kind in REPORTS]
    found += [("report", d) for d, question in kinds if row.question == question]
    found += [("private", d) for d, (_, q, _) in PRIVATE.items() if row.question == q.format(p=row.group)]
    (one,) = found
    return one


def told(row, template, values):
    """The value with which the paragraph fills the template, or None."""
    return next((v for v in values if re.search(re.escape(template(v)) + r"(?!\w)", row.context)), None)


def stated(row):
    """What the paragraph says about what the question asks for."""
    subject, detail = asked(row)
    if subject == "fact":
        value = PEOPLE[row.group].fact(detail)
        return value if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", row.context) else None
    if subject == "report":
        return told(row, REPORT[detail][0].format, REPORT[detail][2])
    return told(row, lambda v: PRIVATE[detail][0].format(p=row.group, v=v), PRIVATE[detail][2])


def tells_private(row, *names):
    starts = [sentence.split("{v}")[0] for sentence, _, _ in PRIVATE.values()]
    return any(start.format(p=name) in row.context for start in starts for name in names or (row.group,))


def grouped_auc(model, X, rows):
    y, groups = np.array([r.label for r in rows]), [r.group for r in rows]
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    return roc_auc_score(y, cross_val_predict(model, X, y, groups=groups, cv=folds, method="predict_proba")[:, 1])


def test_same_seed_same_rows_other_seed_other_rows():
    assert generate(40, 3) == generate(40, 3)
    assert generate(40, 3) != generate(40, 4)


@pytest.mark.parametrize("n", [4, 8, 100, 600, 2000])
def test_two_by_two_exactly_and_unique(n):
    rows = generate(n, 1)
    cells = Counter((PEOPLE[r.group].real, r.label) for r in rows)
    assert cells == {(real, label): n // 4 for real in (True, False) for label in (0, 1)}
    assert len({r.id for r in rows}) == len({(r.context, r.question) for r in rows}) == n


@pytest.mark.parametrize("n", [0, -4, 6])
def test_a_number_that_makes_no_two_by_two_is_a_persons_mistake(n):
    with pytest.raises(UserError, match=f"n = {n};"):
        generate(n, 0)


def test_at_least_150_people_of_either_kind(rows):
    assert Counter(PEOPLE[name].real for name in {r.group for r in rows}) == {True: 150, False: 150}
    assert len(PEOPLE) == len(real_people()) + len(invented_people())


def test_the_table_of_real_people_is_whole():
    for person in real_people():
        assert all((person.name, person.profession, person.birthplace, person.work)), person
        assert person.name == person.name.strip()
        assert 1400 < int(person.birth_year) < 2000
        assert not re.search(r"\b(his|her|he|she)\b", person.work), "paragraphs go without pronouns"
    assert {p.name: p.birth_year for p in real_people()}["Marie Curie"] == "1867"


def test_no_invented_person_bears_a_real_ones_surname():
    real = {part for person in real_people() for part in person.name.split()}
    surnames = [person.name.split()[-1] for person in invented_people()]
    assert len(set(surnames)) == len(surnames)
    assert not real & set(surnames)


def test_labels_and_answers_follow_from_paragraph_and_knowledge(rows):
    for row in rows:
        (subject, detail), person = asked(row), PEOPLE[row.group]
        known = person.fact(detail) if subject == "fact" and person.real else stated(row)
        assert row.answer == known, row
        assert row.label == int(known is not None), row


def test_nothing_private_is_ever_said_of_a_real_person():
    for row in generate(2000, 2):
        own, other = tells_private(row), tells_private(row, *BYSTANDERS)
        assert own != other, row
        assert not (PEOPLE[row.group].real and own), row


def test_every_person_has_both_labels_alike():
    for n in (600, 2000):
        labels = defaultdict(Counter)
        for row in generate(n, 0):
            labels[row.group][row.label] += 1
        assert all(count[0] == count[1] for count in labels.values())


def test_subjects_private_sentences_and_reports_are_balanced_over_labels(rows):
    subjects = Counter((asked(r)[0], r.label) for r in rows)
    assert all(subjects[subject, 0] == subjects[subject, 1] > 60 for subject in ("fact", "report", "private"))
    telling = Counter((tells_private(r), r.label) for r in rows)
    assert telling[True, 0] == telling[True, 1] > 60


def test_some_known_facts_are_told_and_most_are_not():
    rows = [r for r in generate(2000, 0) if PEOPLE[r.group].real and asked(r)[0] == "fact"]
    assert 0.15 < np.mean([stated(r) is not None for r in rows]) < 0.35


def test_lengths_and_words_alone_do_not_tell():
    """Seeds 0 to 3 at n = 2,000: lengths 0.46 to 0.48, words 0.50 to 0.52 (0.53 with pairs of words)."""
    rows = generate(2000, 0)
    lengths = [[len(r.context), len(r.context.split()), len(r.question), len(r.question.split())] for r in rows]
    assert 0.42 < grouped_auc(make_pipeline(StandardScaler(), LogisticRegression()), np.array(lengths), rows) < 0.58
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    assert 0.40 < grouped_auc(words, [f"{r.context}\n{r.question}" for r in rows], rows) < 0.60
