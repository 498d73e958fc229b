"""The rule of imports of docs/architecture.md: a package imports only from those that are listed for it."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src/sae_transfer"
PAGE = (Path(__file__).parents[1] / "docs/architecture.md").read_text()
LOW = ["core", "stats", "data", "artifacts"]
RULES = {
    "core": [],
    "stats": LOW[:1],
    "data": LOW[:2],
    "artifacts": LOW[:1],
    "model": LOW,
    "probing": LOW,
    "results": ["core", "stats", "probing"],
    "analyses": [*LOW, "probing", "results"],
    "report": ["core", "stats", "artifacts", "probing", "results"],
    "tracking": ["core", "stats", "probing", "results", "tuning"],
    "tuning": ["core", "stats", "probing"],
    "demo": ["core", "data", "model", "artifacts"],
}
RULES["pipeline"] = [*RULES]
RULES["cli"] = [*RULES]


def imports(path):
    """The packages of ours that a file imports; what only the type checker reads does not count."""
    tree = ast.parse(path.read_text())
    typing = {
        id(n) for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test) for n in n.body
    }
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and id(n) not in typing]
    names = [f"{n.module}.{a.name}".split(".") for n in found for a in n.names]
    return {parts[1] for parts in names if parts[0] == "sae_transfer"}


@pytest.mark.parametrize("package", RULES)
def test_imports_go_down(package):
    found = {str(path): imports(path) - {package, *RULES[package]} for path in (SRC / package).rglob("*.py")}
    assert not {path: names for path, names in found.items() if names}


def test_the_page_has_a_row_for_every_package():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.split("## Packages")[1].split("\n## ")[0], re.MULTILINE)
    assert set(rows) == RULES.keys()


def test_every_package_has_a_rule_and_no_two_modules_share_a_name():
    assert {path.name for path in SRC.iterdir() if path.is_dir() and path.name != "__pycache__"} == RULES.keys()
    names = Counter(path.stem for path in SRC.rglob("*.py") if not path.stem.startswith("__"))
    packages = {path.name for path in SRC.rglob("*") if path.is_dir()}
    assert [name for name, n in names.items() if n > 1 or name in packages] == ["report"]
