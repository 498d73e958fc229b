"""One rule for names: what passes is a file of that name on any machine, alone, and means nothing else."""

import random
import string

import pytest

from sae_transfer.core.errors import UserError
from sae_transfer.core.names import LONGEST, check_name, check_names

GOOD = [
    "squad",
    "squad2.0",
    "gemma-2.5",
    "_a",
    "0",
    "2024",
    "null",
    "True",
    "layers",
    "layer_x",
    "x" * LONGEST,
    "a.b.c",
]
PATHS = [
    "",
    ".",
    "..",
    "a/b",
    "../up",
    "/etc/passwd",
    "a\\b",
    "C:x",
    "~",
    ".hidden",
    "-rf",
    "a.",
    "a..b",
    "a/../b",
    "*",
    "?",
]
SHELL = [
    "a;touch x",
    "$(touch x)",
    "`x`",
    "a|b",
    "a&b",
    "a>b",
    "a b",
    "a'b",
    'a"b',
    "${HOME}",
    "%s",
    "{0}",
    "#a",
    "!a",
    "a=b",
]
TEXT = [
    "a\nb",
    "a\n",
    "a\t",
    "a\0",
    "\x1b[31m",
    "<img src=x>",
    "p\u0430ssages",
    "people\u200b",
    "\u202epeople",
    "\uff41",
    "é",
    "\ud83d",
]
TAKEN = [
    "text",
    "Verbal",
    "ALL",
    "layer_3",
    "LAYER_20",
    "manifest",
    "pooled",
    "mean",
    "residual",
    "CON",
    "nul",
    "com1",
    "aux.v1",
]


@pytest.mark.parametrize("name", GOOD)
def test_names_that_people_give(name):
    assert check_name(name, "dataset") == name


@pytest.mark.parametrize("name", [*PATHS, *SHELL, *TEXT])
def test_names_that_are_paths_or_commands_or_look_like_others(name):
    with pytest.raises(UserError, match=r"""^dataset ['"].*: a name has letters""") as caught:
        check_name(name, "dataset")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", TAKEN)
def test_words_with_a_meaning_of_their_own(name):
    with pytest.raises(UserError, match=f"SAE '{name}': this word has a meaning of its own here"):
        check_name(name, "SAE")


def test_a_letter_that_looks_like_another_is_named():
    with pytest.raises(UserError, match=r"; '\\u0430' is none of these$"):
        check_name("p\u0430ssages", "dataset")


@pytest.mark.parametrize("length", [LONGEST + 1, 300, 100_000])
def test_long_names(length):
    with pytest.raises(UserError, match=f"a name has at most {LONGEST} characters, not {length}") as caught:
        check_name("x" * length, "dataset")
    assert len(str(caught.value)) < 120


def test_names_that_are_one_file_where_capitals_make_no_difference():
    check_names(["people", "people2"], "dataset")
    with pytest.raises(
        UserError, match="dataset 'People': 'people' is the same file name on many machines; rename one"
    ):
        check_names(["people", "People"], "dataset")


def test_whatever_passes_is_one_file_in_its_folder(tmp_path):
    """Random names of hostile letters: the rule accepts exactly those that the letters it states allow."""
    draw = random.Random(0)
    letters = string.ascii_letters + string.digits + "_-." + "./-. ;$'`\n\0é\u0430\u200b"
    passed = 0
    for _ in range(3000):
        name = "".join(draw.choices(letters, k=draw.randint(0, 8)))
        sound = name.isascii() and not set(name) - set(string.ascii_letters + string.digits + "_-.")
        sound = sound and name and name[0] not in ".-" and not name.endswith(".") and ".." not in name
        try:
            check_name(name, "dataset")
        except UserError:
            assert not sound, name
        else:
            assert sound, name
            (tmp_path / f"{name}.txt").touch()
            assert (tmp_path / f"{name}.txt").parent == tmp_path
            passed += 1
    assert passed > 100
    assert {path.suffix for path in tmp_path.iterdir()} == {".txt"}
