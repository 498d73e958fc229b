"""docs/errors.md lists messages that the code still gives."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/errors.md").read_text()
MESSAGES = [cell.strip("`") for cell in re.findall(r"^\| (`.+?`+) \|", PAGE, re.MULTILINE)]


def texts():
    """Every string of the code; of an f-string, the parts between its values."""
    for path in (ROOT / "src/sae_transfer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


SOURCE = "\n".join(texts())


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_gives_the_message(message):
    parts = [part.strip(" '`") for part in message.split("…")]
    assert max(map(len, parts)) >= 8  # enough to find it by
    assert not [part for part in parts if part not in SOURCE]


def test_the_page_lists_messages():
    assert len(MESSAGES) > 60
