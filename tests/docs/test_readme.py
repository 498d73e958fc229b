"""The README's commands and Python run as they are printed, on the finished small study."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sae_transfer.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
NOT_RUN = {
    "make repro": "installs everything and takes minutes; CI runs it",
    "make ui": "serves until it is ended; tests/cli runs `sae-transfer ui`",
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def lines():
    """Every line of the shell blocks, continued ones joined."""
    text = "".join(blocks("bash")).replace("\\\n", "")
    return [line for line in text.splitlines() if line.strip()]


def words(line):
    """What bash makes of the words after `sae-transfer`."""
    script = f'sae-transfer() {{ printf "%s\\0" "$@"; }}\n{line}'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


def test_it_is_short():
    assert len(README.split()) <= 900


def test_every_file_that_is_linked_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_command_is_run_here_or_excused():
    assert {line.split("#")[0].strip() for line in lines() if not line.startswith("sae-transfer ")} == NOT_RUN.keys()
    assert len([line for line in lines() if line.startswith("sae-transfer ")]) >= 3


PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", ROOT / "AGENTS.md", *ROOT.glob("docs/*.md"))}


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_exist(page):
    named = set(re.findall(r"(?:^|`)sae-transfer ([a-z][a-z-]*)", PAGES[page], re.MULTILINE))
    known = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    assert named <= known


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_make_that_are_named_exist(page):
    named = set(re.findall(r"(?:^|`)make (?:[A-Z_]+=\S+ )*([a-z-]+)", PAGES[page], re.MULTILINE))
    assert named <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_commands_on_a_dataset_of_ones_own(fresh):
    """The dataset that the README adds, and the commands that it then gives."""
    (section,) = blocks("yaml")
    mine = yaml.safe_load(section)["datasets"]["mine"]
    rows = [(f"Ben likes tea and owns {i} cats.", f"What does {name} like?", int(name == "Ben"))
            for i in range(250) for name in ("Ben", "Ida")]  # fmt: skip
    path = fresh.folder / mine["path"]
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows, columns=["context", "question", "label"]).to_csv(path, index=False)

    def add(params):
        params["datasets"]["mine"] = mine
        params["study"]["datasets"].append("mine")

    fresh.edit(add)
    for line in lines():
        if line.startswith(("sae-transfer data", "sae-transfer check")):
            code, out, error = fresh.cli(*words(line))
            assert (code, error) == (0, ""), error
    assert out.splitlines()[-1] == "params.yaml is in order"


def test_the_score_of_two_prompts(project):
    (line,) = [line for line in lines() if line.startswith("sae-transfer score")]
    code, out, _ = project.cli(*words(line), "--quiet")
    assert code == 0
    p = [float(row.split()[0]) for row in out.splitlines() if re.match(r"[01]\.\d+ ", row)]
    assert len(p) == 2
    assert p[0] > p[1]  # David's animals are told, Greta's are not


def test_the_python(fresh, capsys):
    names = {}
    for block in blocks("python"):
        exec(block, names)
    assert "auc_low" in capsys.readouterr().out
    assert {"layer_3", "narrow_3"} <= set(names["cells"]["space"])
    p = names["probe"].predict_proba(names["study"].rows("narrow_3", "people", "test").X)
    assert p.shape == (40, 2)
    assert (fresh.folder / "heatmap.svg").stat().st_size > 1000
