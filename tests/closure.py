"""The modules that each DVC stage imports: `python tests/closure.py` writes them into dvc.yaml, test_dvc.py checks.

DVC does not follow imports: a module that a stage imports and does not name would leave stale results behind.
"""

import ast
import re
from functools import cache
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "src/sae_transfer"


def entry(command):
    """The module that a stage's command runs."""
    return re.search(r"python -m (sae_transfer[.\w]+)", command)[1]


def closure(module, src=ROOT / "src"):
    """Files under `src` that running a module can import (inside functions too), or that it names as package data."""
    package = src / module.split(".")[0]
    data = {path.name: path for path in package.rglob("*") if path.suffix in (".html", ".tsv")}
    found, open_ = set(), [module]
    while open_:
        for name in accumulate(open_.pop().split("."), "{}.{}".format):
            path = _file(name, src)
            if path is None or path in found:
                continue
            found.add(path)
            imported, texts = _read(path, package.name)
            open_ += imported
            found |= _with_included({data[name] for name in texts & data.keys()}, data)
    return {path.relative_to(src.parent).as_posix() for path in found}


@cache
def _read(path, package):
    """The names that a file imports from the package, and its literals."""
    tree = ast.parse(path.read_text())
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return tuple(_imports(tree, package)), literals


def _with_included(files, data):
    """The files, and the templates that they include or import."""
    found, open_ = set(), set(files)
    while open_:
        path = open_.pop()
        found.add(path)
        open_ |= {data[name] for name in re.findall(r'"(\w+\.html)"', path.read_text()) if name in data} - found
    return found


def _file(name, src):
    path = src.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _imports(tree, package):
    """Dotted names; of `from a import b` both a and a.b, since b may be a module or a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not followed"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.split(".")[0] == package)


def with_closures(pipeline):
    """The text of a dvc.yaml in which every stage's deps name the modules that its command imports, after its data."""
    lines, wanted = [], []
    for line in pipeline.splitlines():
        if line.lstrip().startswith("cmd: "):
            wanted = sorted(closure(entry(line)))
        if line.lstrip().startswith(f"- {PACKAGE}/"):
            continue
        if wanted and lines and lines[-1].lstrip().startswith(("- ", "deps:")) and not line.lstrip().startswith("- "):
            indent = " " * (len(line) - len(line.lstrip()))
            lines += [f"{indent}- {path}" for path in wanted]
            wanted = []
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = ROOT / "dvc.yaml"
    path.write_text(with_closures(path.read_text()))
