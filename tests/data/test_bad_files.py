"""Files as they are found: each is read right, or refused in one line that says what, where and what to do."""

import contextlib
import csv
import gzip
import io
import json
import os
import random

import pytest
import zstandard

from sae_transfer.cli import score_command
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.data.loaders.loader_registry import DatasetParams, load


def rows(n=20, **more):
    return [
        {
            "id": str(i),
            "context": f"Ben likes item {i}.",
            "question": f"What does Ben like {i}?",
            "label": i % 2,
            **more,
        }
        for i in range(n)
    ]


def jsonl(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def table(records):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue().encode()


def squad(**question):
    first = {"id": "a", "question": "Q?", "is_impossible": False, "answers": [{"text": "x"}]} | question
    asked = [first, {"id": "b", "question": "R?", "is_impossible": True, "answers": []}]
    return json.dumps({"data": [{"paragraphs": [{"context": "C", "qas": asked}]}]}).encode()


def loaded(path, loader="table", **more):
    section = parse(
        DatasetParams, {"loader": loader, "path": str(path), "n_train": 2, "n_test": 2, **more}, "datasets.d"
    )
    return load("d", section)[0]


def refusal(path, loader="table", **more):
    with pytest.raises(UserError) as caught:
        loaded(path, loader, **more)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 400
    return message


LINES, CSV = jsonl(rows()), table(rows())
SAME = ["Ben likes item 0.", "What does Ben like 0?"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl", LINES),
        ("m.csv", b"\xef\xbb\xbf" + CSV),
        ("m.csv", CSV.replace(b"\r\n", b"\n")),
        ("m.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\r\n")),
        ("m.jsonl.gz", gzip.compress(LINES)),
        ("m.csv.zst", zstandard.compress(CSV)),
        ("m.csv.gz", gzip.compress(CSV[:100]) + gzip.compress(CSV[100:])),
        ("m.jsonl", jsonl([row | {"label": float(row["label"])} for row in rows()])),
        ("m.csv", table([row | {"label": float(row["label"])} for row in rows()])),
    ],
)
def test_the_same_rows_in_many_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    found = loaded(tmp_path / name)
    assert [row.label for row in found] == [0, 1] * 10
    assert [found[0].context, found[0].question] == SAME


@pytest.mark.parametrize("length", [131_071, 131_072, 131_073, 1_000_000])
def test_a_csv_field_is_as_long_as_a_context_is(tmp_path, length):
    path = tmp_path / "m.csv"
    path.write_bytes(CSV.replace(b"Ben likes item 5.", b"x" * length))
    assert len(loaded(path)[5].context) == length


def test_a_whole_emoji_is_text_and_half_of_one_is_none(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(LINES.replace(b"item 7.", rb"item \ud83d\ude00."))
    assert loaded(path)[7].context == "Ben likes item \U0001f600."
    path.write_bytes(LINES.replace(b"like 7?", rb"like \ud83d?"))
    said = r"dataset d: row m.jsonl:7: its question has '\ud83d' at character 19, which is no text; remove it"
    assert refusal(path).startswith(said)


DIGITS = b"9" * 5000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        # encodings
        ("m.csv", CSV.replace(b"item 9", "é".encode("latin-1")), "m.csv line 11: not UTF-8 text (byte 0xe9); save"),
        ("m.csv", table(rows(5000)).replace(b"item 4999", b"\xe9"), "m.csv line 5001: not UTF-8 text (byte 0xe9)"),
        ("m.csv.gz", gzip.compress(CSV.replace(b"item 9", b"\xe9")), "m.csv.gz line 11: not UTF-8 text (byte 0xe9)"),
        ("m.jsonl", LINES.decode().encode("utf-16"), "m.jsonl: not UTF-8 text but UTF-16; save it as text in UTF-8"),
        ("m.csv", CSV.decode().encode("utf-32"), "m.csv: not UTF-8 text but UTF-32"),
        ("m.jsonl", LINES.decode().encode("utf-16-le"), "it has NUL bytes: save it as text in UTF-8"),
        ("m.jsonl", gzip.compress(LINES), "m.jsonl: not UTF-8 text but gzip, whose name ends in .gz"),
        ("m.csv", CSV.replace(b"item 7", b"\x00"), r"row m.csv:7: its group has '\x00' at character 10, which is no"),
        ("m.jsonl", LINES.replace(b'"7"', rb'"\ud83d"'), r"row m.jsonl:\ud83d: its id has '\ud83d' at character 8"),
        ("m.jsonl", LINES.replace(b"item 7", b"\xed\xa0\xbd"), "m.jsonl line 8: not UTF-8 text (byte 0xed)"),
        # CSV
        ("m.csv", CSV.replace(b"Ben likes item 9", b'"Ben likes item 9'), "m.csv line 21: broken CSV (unexpected end"),
        ("m.csv", CSV + b"201,only\r\n", "m.csv line 22: not 4 fields; correct the line"),
        ("m.csv", CSV + b"201,a,b,1,e,m\r\n", "m.csv line 22: not 4 fields"),
        ("m.csv", CSV.replace(b",", b";"), "m.csv line 2: no column 'question'; known: id;context;question;label"),
        ("m.csv", b"id,question,label,label\n1,q,1,0\n", "m.csv line 1: the column 'label' is there twice; rename or"),
        # JSON
        ("m.jsonl", json.dumps(rows(), indent=1).encode(), "line 1: broken JSON (Expecting value at column 1); w"),
        ("m.jsonl", json.dumps(rows()).encode(), "line 1: expected a JSON object, found list; write one object a line"),
        ("m.jsonl", LINES.replace(b'"id": "7"', b'"id": ' + DIGITS), "m.jsonl line 8: broken JSON (Exceeds the limit"),
        ("m.jsonl", LINES + b"[" * 100_000 + b"\n", "m.jsonl line 21: broken JSON (nested too deeply); correct it"),
        ("m.jsonl", LINES.replace(b'"label": 1}', b'"label": 1, "label": 0}'), "line 2: broken JSON ('label' is there"),
        ("m.jsonl", LINES[:-20], "m.jsonl line 20: broken JSON (Unterminated string"),
        # archives
        ("m.jsonl.gz", gzip.compress(LINES)[:-40], "m.jsonl.gz: damaged archive ("),
        ("m.jsonl.gz", gzip.compress(LINES) + b"garbage", "m.jsonl.gz: damaged archive ("),
        ("m.jsonl.zst", zstandard.compress(LINES)[:-40], "m.jsonl.zst: damaged archive (it ends too early)"),
        # nothing in it
        *((name, b"", f"{name}: no rows; fill it, or correct its path") for name in ("m.csv", "m.jsonl", "m.csv.gz")),
        ("m.csv", b"id,context,question,label\n", "m.csv: no rows; fill it"),
        # labels
        ("m.jsonl", jsonl(rows(label=True)), "line 1 (id 0): label 'true' is neither 0 nor 1; name its texts in col"),
        ("m.jsonl", LINES.replace(b'"label": 1', b'"label": NaN'), "line 2 (id 1): label 'NaN' is neither 0 nor 1"),
        ("m.jsonl", jsonl(rows(label=[1])), "label '[1]' is neither 0 nor 1"),
        ("m.jsonl", jsonl(rows(label="x" * 9999)), "is neither 0 nor 1"),
        ("m.csv", table(rows(label="")), "line 2 (id 0): label '' is neither 0 nor 1"),
        # texts
        ("m.jsonl", jsonl(rows(question="\u200b \u2060")), "row m.jsonl:0 has an empty question"),
        ("m.jsonl", jsonl(rows(question=["a"])), "m.jsonl line 1: 'question' is no text; write it as one"),
        ("m.jsonl", jsonl(rows(context={"a": 1})), "m.jsonl line 1: 'context' is no text; write it as one"),
        ("m.jsonl", jsonl(rows(id=7)), "the id m.jsonl:7 occurs twice"),
        ("m.parquet", b"PAR1", "a table's name ends in .csv or .jsonl"),
    ],
)  # fmt: skip
def test_a_table_that_is_none(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert message.startswith("dataset d: ")
    assert said in message


@pytest.mark.parametrize("loader", ["squad", "idk"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (squad().replace(b'"is_impossible": false, ', b""), "not in the SQuAD 2.0 format, 'is_impossible' is missing"),
        (squad(is_impossible="false"), "s.json: question a: is_impossible is neither true nor false; correct it"),
        (squad(question=None), "s.json: not in the SQuAD 2.0 format"),
        (squad(answers=["x"]), "s.json: not in the SQuAD 2.0 format"),
        (squad(answers=[{"text": 5}]), "row s.json:a: its answer is no text; write it as one"),
        (squad(id="b"), "the id s.json:b occurs twice"),
        *((content, "not in the SQuAD 2.0 format") for content in (b"[1]", b'"x"', b"null", b"5", b'{"data": "abc"}')),
        (b'{"data": []}', "s.json: no rows"),
        (b'{"data": [{"paragraphs": null}]}', "not in the SQuAD 2.0 format"),
        (b"[" * 100_000, "s.json: broken JSON (nested too deeply)"),
        (squad()[:-30], "s.json: broken JSON (Unterminated string"),
        (b"", "s.json: broken JSON (Expecting value"),
        (LINES, "s.json line 2: broken JSON (Extra data"),
        (squad(question="Q").replace(b'"Q"', rb'"\ud83d"'), r"row s.json:a: its question has '\ud83d'"),
        (squad().decode().encode("utf-16"), "s.json: not UTF-8 text but UTF-16"),
    ],
)
def test_json_of_another_shape(tmp_path, loader, content, said):
    (tmp_path / "s.json").write_bytes(content)
    assert said in refusal(tmp_path / "s.json", loader)


def test_squad_reads_packed_files_and_byte_order_marks(tmp_path):
    (tmp_path / "s.json.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + squad()))
    assert [row.label for row in loaded(tmp_path / "s.json.gz", "squad")] == [1, 0]


@pytest.mark.parametrize("answer", ["null", "1", "[1]", '"maybe"'])
def test_boolq_of_another_shape(tmp_path, answer):
    (tmp_path / "b.json").write_text(f'{{"passage": "p", "question": "q", "answer": {answer}}}')
    assert "b.json line 1: answer " in refusal(tmp_path / "b.json", "boolq")
    (tmp_path / "b.json").write_text('{"passage": null, "question": "q", "answer": true}')
    assert "b.json line 1: 'passage' is no text" in refusal(tmp_path / "b.json", "boolq")


# places


def test_places_that_are_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jsonl/inner").mkdir(parents=True)
    os.symlink("loop.jsonl", "loop.jsonl")
    os.mkfifo("fifo.jsonl")
    said = {
        "folder.jsonl": "folder.jsonl: no file in this folder; put one there",
        "loop.jsonl": "loop.jsonl: not found; correct its path",
        "fifo.jsonl": "fifo.jsonl: not found; correct its path",
        "/dev/null": "/dev/null: not found; correct its path",
        "gone.jsonl": "gone.jsonl: not found; correct its path",
        "n" * 300: "no file can have this name",
        "a\0b.jsonl": "no file can have this name",
        **dict.fromkeys(("", ".", "..", "/", "folder.jsonl/.."), "is the whole project or a folder around it"),
    }
    for path, part in said.items():
        assert part in refusal(path), path
    assert "no file can have this name" in refusal("folder.jsonl", train_files=["n" * 300])
    assert "folder.jsonl/inner: a folder, not a file" in refusal("folder.jsonl", train_files=["inner"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(LINES)
    (tmp_path / "m.jsonl").chmod(0)
    assert "m.jsonl: cannot be read (Permission denied); correct its path or its rights" in refusal(
        tmp_path / "m.jsonl"
    )


# whatever is done to a file


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.jsonl.gz", "s.json", "b.json"])
def test_random_damage_ends_in_rows_or_in_one_line(tmp_path, name):
    draw, path = random.Random(name), tmp_path / name
    loader = {"s.json": "squad", "b.json": "boolq"}.get(name, "table")
    answers = (
        b'{"passage": "p", "question": "q", "answer": true}\n{"passage": "p", "question": "r", "answer": "no-answer"}\n'
    )
    whole = {"m.csv": CSV, "m.jsonl": LINES, "m.jsonl.gz": gzip.compress(LINES), "s.json": squad(), "b.json": answers}
    bits = [b"\0", b"\xff", b'"', b"\n", b",", b"{", b"[", b"]", b"null", rb"\ud83d", b"\xef\xbb\xbf", b"1e999", b""]
    for _ in range(150):
        content = bytearray(whole[name])
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(content))
            content[at : at + draw.randint(0, 4)] = draw.choice(bits)
        path.write_bytes(content)
        with contextlib.suppress(UserError):  # which is one line, whatever it says; anything else fails here
            assert all(row.question and row.label in (0, 1) for row in loaded(path, loader))


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    """As for another than root, who may read everything."""
    (tmp_path / "locked").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    assert "locked: cannot be read (Permission denied); correct its path or its rights" in refusal(tmp_path / "locked")


def test_prompts_to_score_are_read_as_datasets_are(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbfWho?\r\n\r\nWhy?\n")
    assert list(score_command._prompts(path, "default", wanted=True)) == ["Who?", "Why?"]
    path.write_bytes(b"Who?\nWh\xff?\n")
    with pytest.raises(UserError, match=r"p\.txt line 2: not UTF-8 text"):
        list(score_command._prompts(path, "default", wanted=True))
