"""docs/notebook.ipynb without Jupyter: runs its cells, and as a program writes their outputs into it.

`make repro` first, then `PYTHONPATH=src python tests/notebook_cells.py` after a change of the cells or of the demo.
"""

import ast
import base64
import json
import os
from pathlib import Path

PATH = Path(__file__).parents[1] / "docs/notebook.ipynb"


def code():
    return [cell for cell in json.loads(PATH.read_text())["cells"] if cell["cell_type"] == "code"]


def cells():
    """The sources of the notebook's cells of code."""
    return ["".join(cell["source"]) for cell in code()]


def outputs():
    """What is committed as shown below each of them: MIME types with their data."""
    return [{kind: data for out in cell["outputs"] for kind, data in out["data"].items()} for cell in code()]


def run(sources):
    """For each cell what a notebook would display below it: MIME types with their data, or nothing."""
    names, shown = {}, []
    for source in sources:
        tree, value = ast.parse(source), None
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, PATH.name, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), PATH.name, "eval"), names)
        shown.append(displayed(value))
    return shown


def displayed(value):
    if value is None:
        return {}
    if hasattr(value, "_repr_png_"):
        return {"image/png": base64.b64encode(value._repr_png_()).decode(), "text/plain": [type(value).__name__]}
    html = {"text/html": value._repr_html_().splitlines(True)} if hasattr(value, "_repr_html_") else {}
    return html | {"text/plain": repr(value).splitlines(True)}


def main():
    os.chdir(PATH.parent)
    notebook = json.loads(PATH.read_text())
    there = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, data) in enumerate(zip(there, run(cells()), strict=True), start=1):
        output = {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}
        cell |= {"execution_count": number, "outputs": [output] if data else []}
    PATH.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
