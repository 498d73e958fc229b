"""What a person who mistypes params.yaml is told."""

from pathlib import Path

import pytest

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import ParamsSection, parse, read_yaml

# Ten mappings of ten mappings and so on: a hundred million values in a few lines.
BOMB = "l0: &l0 {a: 1}\n" + "".join(
    f"l{n}: &l{n} {{{', '.join(f'k{k}: *l{n - 1}' for k in range(10))}}}\n" for n in range(1, 9)
)


class Inner(ParamsSection):
    question: str = "question"


class Kind(ParamsSection):
    n_train: int
    template: str = "default"
    columns: Inner = Inner()


class Whole(ParamsSection):
    datasets: dict[str, Kind]
    sizes: dict[str, int] | None = None


def written(folder, text):
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message(call, *args):
    with pytest.raises(UserError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_section_is_read_as_its_frozen_class(tmp_path):
    params = read_yaml(written(tmp_path, "datasets:\n  é: {n_train: 4, columns: {question: q}}\n"))
    chosen = parse(Kind, params["datasets"]["é"])
    assert chosen == Kind(n_train=4, columns=Inner(question="q"))
    with pytest.raises(ValueError, match="frozen"):
        chosen.n_train = 5


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_train": 4, "templat": "x"}, "unknown key datasets.a.templat; did you mean template?"),
        ({"n_trian": 4}, "unknown key datasets.a.n_trian; did you mean n_train?"),  # and not: n_train is missing
        ({"n_train": 4, "zzz": 1}, "unknown key datasets.a.zzz; known: columns, n_train, template"),
        (
            {"n_train": 4, "columns": {"qestion": "x"}},
            "unknown key datasets.a.columns.qestion; did you mean question?",
        ),
        ({"template": "x"}, "datasets.a.n_train is missing"),
        ({"n_train": "many"}, "datasets.a.n_train = 'many': Input should be a valid integer"),
        ({"n_train": 4, "template": 3}, "datasets.a.template = 3: Input should be a valid string"),
        ([1], "datasets.a = [1]: Input should be a valid dictionary"),
        (None, "datasets.a = None: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_place(values, said):
    assert message(parse, Kind, values, "datasets.a").startswith(said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"datasets": {"a": {"n_trian": 4}}}, "unknown key datasets.a.n_trian; did you mean n_train?"),
        (
            {"datasets": {"n_train": {"n_train": 4, "columns": {"qestion": "x"}}}},
            "unknown key datasets.n_train.columns.qestion; did you mean question?",
        ),
        ({"datasets": {"a": 5}}, "datasets.a = 5: Input should be a valid dictionary"),
        ({"datasets": {}, "sizes": {"a": "many"}}, "sizes.a = 'many': Input should be a valid integer"),
        ({"datsets": {}}, "unknown key datsets; did you mean datasets?"),
    ],
)
def test_a_key_below_a_name_of_ones_own_is_told_the_closest_too(values, said):
    assert message(parse, Whole, values).startswith(said)


def test_without_a_place_the_keys_alone_are_named():
    assert message(parse, Kind, {"n_trian": 4}) == "unknown key n_trian; did you mean n_train?"
    assert message(parse, Kind, {}) == "n_train is missing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 0\nstudy: [a\nmodel: b\n", " line 3: not valid YAML"),
        ("seed: 0\n\tstudy: 1\n", " line 2: not valid YAML"),
        (b"seed: \xff\n", ": not valid YAML"),
        ("- a\n- b\n", ": expected sections (name: value), found list"),
        ("", ": expected sections (name: value), found NoneType"),
        (b"\xff\xfea\x00: \x001\x00", ": not valid YAML"),  # UTF-16
        ("seed: 0\nseed: 7\n", " line 2: 'seed' is there twice; delete one"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", " line 4: 'b' is there twice; delete one"),
        ("seed: 2024-13-45\n", ": a value is none (month must be in 1..12); put quotes around it"),
        (f"seed: {'9' * 5000}\n", ": a value is none (Exceeds the limit"),
        ("a: &a {b: *a}\n", " line 1: aliases unfold without end; write it without them"),
        (BOMB, " line 6: aliases unfold without end; write it without them"),
        (f"a: {'[' * 20_000}{']' * 20_000}\n", ": nested too deeply"),
        ("? [a, b]\n: 1\n", " line 1: not valid YAML"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, said):
    path = written(tmp_path, text)
    assert message(read_yaml, path).startswith(f"{path}{said}")


def test_a_missing_file_says_where_to_run():
    assert message(read_yaml, Path("nosuch/params.yaml")).startswith(
        "nosuch/params.yaml: not found; run this from the project's root"
    )


def test_what_cannot_be_read_is_told(tmp_path):
    (tmp_path / "params.yaml").mkdir()
    assert message(read_yaml, tmp_path / "params.yaml").endswith(
        "params.yaml: cannot be read (Is a directory); correct what lies there"
    )


def test_aliases_that_a_person_writes_are_read(tmp_path):
    path = written(tmp_path, "\ufeffa: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert read_yaml(path) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}


def test_a_message_stays_one_printable_line_whatever_it_repeats():
    values = {"datasets": {}, "a\nb\x1b[31m\u202e": 1}
    assert message(parse, Whole, values).startswith(r"unknown key a\nb\x1b[31m\u202e; known: datasets, sizes")
    assert len(message(parse, Whole, {"datasets": "x" * 10_000})) < 200
