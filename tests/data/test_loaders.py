import gzip
import json
from collections import Counter

import pytest
import zstandard

from real_data import REAL, needs_real_data
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.data.loaders.loader_registry import DatasetParams, load
from sae_transfer.data.loaders.table import Columns
from sae_transfer.data.overlap import normalised
from sae_transfer.data.prompt_templates import render
from sae_transfer.data.splits import Quota, split

SQUAD = "squad-v2.0-dev-half.json"
HAS_ANSWER, NON_COMPETITIVE, COMPETITIVE = (
    f"ACE-whQA-{part}.json" for part in ("has-answer", "IDK-non-competitive", "IDK-competitive")
)
BOOLQ = "BoolQ_3L-dev_full.json"


def params(loader, path, **more):
    return parse(DatasetParams, {"loader": loader, "path": path, "n_train": 2, "n_test": 2, **more}, "datasets.d")


def counts(rows):
    return dict(Counter(row.label for row in rows))


def assert_apart(train, test):
    for value in (lambda row: row.group, lambda row: row.context, lambda row: normalised(row.question)):
        assert not {value(row) for row in train} & {value(row) for row in test}


# the real files


@needs_real_data
def test_squad():
    rows, test_rows = load("squad", params("squad", REAL / SQUAD))
    assert test_rows is None
    assert counts(rows) == {0: 3168, 1: 2910}
    assert len({row.group for row in rows}) == 646
    first = rows[0]
    assert (first.id, first.answer) == (f"{SQUAD}:68cf05f67fd29c6f129fe2fb9", "France")
    assert first.question == "In what country is Normandy located?"
    assert first.context == first.group == first.context.strip()
    assert first.source == SQUAD
    assert all((row.answer is None) == (row.label == 0) for row in rows)
    train, test = split(rows, None, Quota.model_validate(2000), Quota.model_validate(1800), 0, "squad", "one_side")
    assert counts(train) == {0: 1000, 1: 1000}
    assert counts(test) == {0: 900, 1: 900}
    assert_apart(train, test)


@needs_real_data
def test_idk_uses_all_484_rows_of_the_paper_with_no_context_or_question_on_both_sides():
    section = params("idk", REAL, train_files=[HAS_ANSWER, NON_COMPETITIVE])
    rows, _ = load("idk", section)
    assert counts(rows) == {0: 246, 1: 238}
    assert sum(len({row.label for row in rows if row.group == group}) == 2 for group in {r.group for r in rows}) == 17
    assert not any("  " in row.question + row.context for row in rows)
    half = Quota(answerable=119, unanswerable=123)
    for seed in range(5):
        train, test = split(rows, None, half, half, seed, "idk", section.question_rule)
        assert (len(train), len(test)) == (242, 242)
        assert_apart(train, test)


@needs_real_data
def test_idk_drops_the_header_row_and_tells_repeated_ids_apart():
    rows, _ = load("idk", params("idk", REAL, train_files=[HAS_ANSWER, NON_COMPETITIVE, COMPETITIVE]))
    assert Counter(row.source for row in rows) == {HAS_ANSWER: 238, NON_COMPETITIVE: 246, COMPETITIVE: 249}
    assert not any(row.context == "Text" or row.question == "Question" for row in rows)
    assert {f"{HAS_ANSWER}:0", f"{NON_COMPETITIVE}:0", f"{COMPETITIVE}:0"} < {row.id for row in rows}
    assert next(row for row in rows if row.id == f"{HAS_ANSWER}:2").question == "When was the call"


@needs_real_data
def test_boolq_asks_every_question_once():
    section = params("boolq", REAL / BOOLQ)
    rows, _ = load("boolq", section)
    assert counts(rows) == {0: 1591, 1: 3270}  # 45 of 1,636 no-answer rows repeat the passage that answers them
    assert Counter(row.answer for row in rows) == {"yes": 2033, "no": 1237, None: 1591}
    assert len({row.group for row in rows}) == 2938
    train, test = split(rows, None, *[Quota.model_validate(1500)] * 2, 0, "boolq", section.question_rule)
    assert counts(train) == counts(test) == {0: 750, 1: 750}
    assert len({normalised(row.question) for row in train + test}) == 3000
    assert_apart(train, test)


@needs_real_data
def test_boolq_says_how_much_there_is():
    section = params("boolq", REAL / BOOLQ)
    with pytest.raises(
        UserError, match="boolq: n_test needs 2000 answerable rows, the data have 1679 answerable and 1591"
    ):
        split(load("boolq", section)[0], None, *[Quota.model_validate(4000)] * 2, 0, "boolq", section.question_rule)


# small files of our own


def squad_file(path, *questions, context=" A passage. "):
    """Each question is (id, is_impossible)."""
    qas = [
        {
            "id": id_,
            "question": f" Question {id_}? ",
            "is_impossible": impossible,
            "answers": [] if impossible else [{"text": f"answer {id_}", "answer_start": 0}],
        }
        for id_, impossible in questions
    ]
    path.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": [{"context": context, "qas": qas}]}]}))
    return path


def table_file(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def two_rows(**more):
    return [{"prompt": f"p{label}", "label": label, **more} for label in (0, 1)]


def test_train_and_test_files_stay_apart(tmp_path):
    squad_file(tmp_path / "train.json", ("a", False), ("b", True))
    squad_file(tmp_path / "dev.json", ("a", False), ("c", True))
    rows, test_rows = load("d", params("squad", tmp_path, train_files=["train.json"], test_files=["dev.json"]))
    assert [row.id for row in rows] == ["train.json:a", "train.json:b"]
    assert [row.id for row in test_rows] == ["dev.json:a", "dev.json:c"]
    assert rows[0].context == "A passage."
    assert rows[0].question == "Question a?"
    assert rows[0].answer == "answer a"


def test_a_folder_is_all_its_files_but_those_about_it(tmp_path):
    for name in ("b.jsonl", "a.jsonl"):
        table_file(tmp_path / name, *two_rows())
    for name in ("README.md", "LICENSE", "LICENSE.txt", "README", "notes.md", ".gitignore"):
        (tmp_path / name).write_text("not a table")
    (tmp_path / "folder.jsonl").mkdir()
    rows, _ = load("d", params("table", tmp_path))
    assert [row.id for row in rows] == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:1", "b.jsonl:2"]


def test_question_rules_follow_the_loader_unless_they_are_said(tmp_path):
    assert [params(loader, tmp_path).question_rule for loader in ("squad", "idk", "boolq", "table")] == [
        "one_side", "one_side", "once", "repeat",
    ]  # fmt: skip
    assert params("table", tmp_path, questions="once").question_rule == "once"


def boolq_line(answer, passage="P", question="q"):
    return {"passage": f" {passage} ", "question": question, "answer": answer, "title": "T"}


@pytest.mark.parametrize("order", [1, -1])
def test_boolq_keeps_the_answer_that_people_gave_where_a_pair_has_both(tmp_path, order):
    pair = [boolq_line(True), boolq_line("no-answer")][::order]
    path = table_file(tmp_path / "b.json", *pair, boolq_line("no-answer", "Q"))
    rows, _ = load("d", params("boolq", path))
    assert sorted((row.group, row.answer) for row in rows) == [("P", "yes"), ("Q", None)]
    assert len({row.id for row in rows}) == 2


# tables


def in_two_frames(data):
    """As parallel compressors and `cat` write it."""
    compress = zstandard.ZstdCompressor().compress
    return compress(data[:50]) + compress(data[50:])


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_tables_read_the_same_from_every_form(tmp_path, ending, packed):
    records = [
        {"id": "a", "context": 'C, "1"\nand more é', "question": "Q1", "label": 1, "answer": "yes"},
        {"id": "b", "context": "C2", "question": "Q2", "label": 0, "answer": ""},
    ]
    if ending == "jsonl":
        text = "\n".join(json.dumps(record) for record in records) + "\n\n"
    else:
        text = '\ufeffid,context,question,label,answer\na,"C, ""1""\nand more é",Q1,1,yes\nb,C2,Q2,0,\n'
    pack = {"": bytes, ".gz": gzip.compress, ".zst": in_two_frames}[packed]
    path = tmp_path / f"t.{ending}{packed}"
    path.write_bytes(pack(text.encode()))
    first, second = load("d", params("table", path))[0]
    assert (first.id, first.group, first.context) == (f"{path.name}:a", records[0]["context"], records[0]["context"])
    assert (first.question, first.label, first.answer, first.source) == ("Q1", 1, "yes", path.name)
    assert (second.id, second.label, second.answer) == (f"{path.name}:b", 0, None)


def test_a_finished_prompt_is_its_own_group_and_rendered_verbatim(tmp_path):
    path = table_file(tmp_path / "t.jsonl", {"prompt": " Say: \n", "label": "1"}, {"prompt": "Do {x}", "label": "0"})
    rows, _ = load("d", params("table", path))
    assert [(row.id, row.group, row.label) for row in rows] == [("t.jsonl:1", "Say:", 1), ("t.jsonl:2", "Do {x}", 0)]
    assert [render("polite", row.context, row.question, finished=row.finished) for row in rows] == [
        " Say: \n",
        "Do {x}",
    ]


def test_a_column_of_statements_is_a_prompt_where_columns_say_so(tmp_path):
    path = table_file(tmp_path / "t.jsonl", {"question": "So?", "label": 1}, {"question": "So what?", "label": 0})
    rows, _ = load("d", params("table", path, columns={"prompt": "question"}))
    assert [(row.question, row.finished) for row in rows] == [("So?", True), ("So what?", True)]
    assert not any(row.finished for row in load("d", params("table", path))[0])


def test_columns_and_labels_can_be_renamed(tmp_path):
    path = table_file(
        tmp_path / "t.jsonl",
        {"text": "T1", "asked": "Q1", "true?": True, "number": 7, "who": "x"},
        {"text": "T2", "asked": "Q2", "true?": False, "number": 8, "who": "x"},
    )
    names = {"context": "text", "question": "asked", "label": "true?", "id": "number", "group": "who"}
    rows, _ = load("d", params("table", path, columns={**names, "positive": "true", "negative": "false"}))
    assert [(r.id, r.group, r.context, r.question, r.label) for r in rows] == [
        ("t.jsonl:7", "x", "T1", "Q1", 1),
        ("t.jsonl:8", "x", "T2", "Q2", 0),
    ]


# a person's mistakes


@pytest.mark.parametrize(
    ("records", "columns", "message"),
    [
        (two_rows()[:1], {}, r"d: t.jsonl hold 0 answerable and 1 unanswerable rows; a probe needs both"),
        ([], {}, r"dataset d: .*t.jsonl: no rows; fill it, or correct its path"),
        ([*two_rows(), {"prompt": " \n", "label": 1}], {}, r"d: row t.jsonl:3 has an empty question"),
        ([*two_rows(), {"prompt": None, "label": 1}], {}, r"d: row t.jsonl:3 has an empty question"),
        (two_rows(id=5), {}, r"d: the id t.jsonl:5 occurs twice"),
        ([*two_rows(), {"prompt": "p", "label": 2, "id": "x"}], {}, r"line 3 \(id x\): label '2' is neither 0 nor 1"),
        ([{"prompt": "p", "label": True}], {}, r"line 1 \(id 1\): label 'true' is neither 0 nor 1; name its"),
        ([{"prompt": "p", "label": None}], {}, r"line 1 \(id 1\): label '' is neither 0 nor 1"),
        (two_rows(), {"positive": "yes", "negative": "no"}, r"line 1 \(id 1\): label '0' is neither no nor yes; corr"),
        ([{"prompt": "p"}], {}, r"t.jsonl line 1: no column 'label'; known: prompt"),
        ([{"text": "p", "label": 1}], {}, r"t.jsonl line 1: no column 'question'; known: label, text"),
        (two_rows(), {"group": "promt"}, r"t.jsonl line 1: no column 'promt'; did you mean prompt"),
        (two_rows(question="q"), {}, r"line 1: has both 'prompt' and 'question'"),
        ([[1, 2]], {}, r"t.jsonl line 1: expected a JSON object, found list"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused(tmp_path, records, columns, message):
    section = params("table", table_file(tmp_path / "t.jsonl", *records), columns=columns)
    with pytest.raises(UserError, match=message):
        load("d", section)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"prompt": "p", "label": 1}\n\n{"prompt": \n', "t.jsonl line 3: broken JSON"),
        ("t.csv", b"prompt,label\np,1\nq,0,9\n", "t.csv line 3: not 2 fields"),
        ("t.csv", b"prompt,label\np,1\nq\n", "t.csv line 3: not 2 fields"),
        ("t.csv", b'prompt,label\np,1\n"q"q,0\n', "t.csv line 3: broken CSV"),
        ("t.csv", b"prompt,label\n\xff,1\n", "t.csv line 2: not UTF-8 text .byte 0xff"),
        ("t.csv.gz", b"prompt,label\n", "t.csv.gz: damaged archive"),
        ("t.csv.gz", gzip.compress(b"prompt,label\n" + b"p,1\n" * 99, mtime=0)[:-9], "t.csv.gz: damaged archive"),
        ("t.csv.zst", b"prompt,label\n", "t.csv.zst: damaged archive"),
        ("t.csv.zst", zstandard.compress(b"prompt,label\n" + b"p,1\n" * 99_999)[:-9], "t.csv.zst: damaged archive"),
        ("t.txt", b"prompt,label\n", r"t.txt: a table's name ends in .csv or .jsonl"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load("d", params("table", tmp_path / name))


@pytest.mark.parametrize("loader", ["squad", "idk"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": [\n{"paragraphs": [}', "s.json line 2: broken JSON"),
        ('{"rows": []}', "s.json: not in the SQuAD 2.0 format, 'data' is missing"),
        ("[1]", "s.json: not in the SQuAD 2.0 format"),
        (
            '{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": 1, "question": "q", "answers": []}]}]}]}',
            "s.json: not in the SQuAD 2.0 format, 'is_impossible' is missing",
        ),
    ],
)
def test_a_file_that_is_not_squad_is_refused(tmp_path, loader, content, message):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load("d", params(loader, tmp_path / "s.json"))


def test_repeated_ids_in_a_squad_file_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"dataset d: the id s\.json:a occurs twice"):
        load("d", params("squad", squad_file(tmp_path / "s.json", ("a", True), ("a", False))))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"passage": "p", "question": "q"}, "b.json line 2: no 'answer'"),
        (boolq_line("maybe"), "b.json line 2: answer 'maybe' is none of true, false, \"no-answer\""),
    ],
)
def test_a_line_that_is_not_boolq_is_refused(tmp_path, record, message):
    with pytest.raises(UserError, match=message):
        load("d", params("boolq", table_file(tmp_path / "b.json", boolq_line(True), record)))


def test_each_of_train_and_test_needs_both_classes(tmp_path):
    squad_file(tmp_path / "train.json", ("a", False), ("b", True))
    squad_file(tmp_path / "dev.json", ("a", False))
    with pytest.raises(UserError, match=r"dev\.json hold 1 answerable and 0 unanswerable rows"):
        load("d", params("squad", tmp_path, train_files=["train.json"], test_files=["dev.json"]))


def test_an_unknown_loader_names_the_closest(tmp_path):
    with pytest.raises(UserError, match=r"datasets\.d\.loader = 'squat': unknown; did you mean squad"):
        params("squat", tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("data/demo/x.jsonl", "dataset d: data/demo/x.jsonl: not found; `dvc pull data.dvc` brings it"),
        ("data/external/x.jsonl", "dataset d: data/external/x.jsonl: not found; correct its path"),
        ("elsewhere/x.jsonl", "dataset d: elsewhere/x.jsonl: not found; correct its path"),
    ],
)
def test_a_missing_file_says_what_brings_it(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load("d", params("table", path))


def test_a_missing_file_in_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"dev\.json: not found"):
        load("d", params("squad", tmp_path, train_files=["dev.json"]))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"test_files": ["a"]}, "test_files needs train_files"),
        ({"test_files": ["a"], "train_files": ["a", "b"]}, "a is both in train_files and in test_files"),
        ({"columns": {"label": "x"}}, "columns are for the loader table, not for squad"),
        ({"n_test": 5}, "datasets.d.n_test = 5: expected an even number"),
        ({"questions": "twice"}, "datasets.d.questions = 'twice'"),
        ({"tempalte": "x"}, r"unknown key datasets.d.tempalte; did you mean template"),
    ],
)
def test_bad_params_are_refused(tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        params("squad", tmp_path, **more)


@pytest.mark.parametrize("names", [{"positive": "a"}, {"negative": "a"}, {"positive": "a", "negative": "a"}])
def test_positive_and_negative_come_as_two_different_texts(names):
    with pytest.raises(UserError, match="give both `positive` and `negative`"):
        parse(Columns, names, "columns")
