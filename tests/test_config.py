"""What a person who mistypes params.yaml is told."""

from pathlib import Path

import pytest

from sae_transfer import config
from sae_transfer.config import Params, parse, section
from sae_transfer.records import UserError


class Inner(Params):
    question: str = "question"


class Kind(Params):
    n_train: int
    template: str = "default"
    columns: Inner = Inner()


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
    params = config.read(written(tmp_path, "datasets:\n  é: {n_train: 4, columns: {question: q}}\n"))
    chosen = section(params, Kind, "datasets", "é")
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
    assert message(parse, Kind, values, "datasets.a").startswith(f"params.yaml: {said}")


def test_an_unknown_section_is_told_the_closest_name():
    params = {"datasets": {"passages": {"n_train": 2}, "people": {}}, "seed": 0}
    assert message(section, params, Kind, "datset") == (
        "params.yaml: no 'datset' under its top level; did you mean datasets?"
    )
    assert message(section, params, Kind, "datasets", "pasages") == (
        "params.yaml: no 'pasages' under datasets; did you mean passages?"
    )
    assert message(section, params, Kind, "seed", "x") == "params.yaml: no 'x' under seed; known: none"


def test_a_name_that_is_read_without_a_class_is_checked_too(tmp_path):
    params = config.read(written(tmp_path, "sed: 0\nstudy: {datasets: [a], sae: [b]}\n5: x\n"))
    assert params["study"]["datasets"] == ["a"]
    assert message(lambda: params["seed"]) == "params.yaml: no 'seed' under its top level; did you mean sed?"
    assert message(lambda: params["study"]["saes"]) == "params.yaml: no 'saes' under study; did you mean sae?"


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
    assert message(config.read, path).startswith(f"{path}{said}")


def test_a_missing_file_says_where_to_run():
    assert message(config.read, Path("nosuch/params.yaml")).startswith(
        "nosuch/params.yaml: not found; run this from the project's root"
    )
