"""What a person who mistypes params.yaml is told."""

from pathlib import Path

import pytest

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import ParamsSection, parse, read_yaml


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
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, said):
    path = written(tmp_path, text)
    assert message(read_yaml, path).startswith(f"{path}{said}")


def test_a_missing_file_says_where_to_run():
    assert message(read_yaml, Path("nosuch/params.yaml")).startswith(
        "nosuch/params.yaml: not found; run this from the project's root"
    )
