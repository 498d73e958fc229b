"""Presets: whole params.yaml files under presets/, and the pins of what they take from the hub."""

import subprocess
from pathlib import Path

from sae_transfer.core import files
from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.params_section import PARAMS_FILE
from sae_transfer.model import pins, saes
from sae_transfer.pipeline import study_cost
from sae_transfer.pipeline.params import Params

FOLDER = Path("presets")
GATED = ("google/gemma-", "meta-llama/")  # whoever wants them accepts a licence first


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def file(name: str) -> Path:
    """The preset's file.

    Raises:
        UserError: there is none (with the closest names).
    """
    if name not in names():
        raise UserError(f"preset '{name}' is unknown; {closest(name, names())}")
    return FOLDER / f"{name}.yaml"


def use(name: str, *, force: bool = False) -> None:
    """Make the preset params.yaml.

    Raises:
        UserError: no such preset; or params.yaml has edits that git does not hold, unless forced.
    """
    source = file(name)
    if not force and not _is_safe(PARAMS_FILE):
        raise UserError(
            f"{PARAMS_FILE} has edits that are not committed; commit them, or `sae-transfer preset use {name} "
            "--force` to lose them"
        )
    files.write_text(PARAMS_FILE, source.read_text(encoding="utf-8"))


def in_use() -> str | None:
    """The preset that params.yaml is, to the letter."""
    return next((name for name in names() if _same(file(name), PARAMS_FILE)), None)


def _is_safe(path: Path) -> bool:
    """Whether nothing is lost with this file: it is not there, is a preset, or is what git's last commit holds."""
    if not path.exists() or in_use():
        return True
    command = ["git", "show", f"HEAD:./{path}"]
    try:
        committed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return committed == path.read_bytes()


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


def from_hub(params: Params) -> list[tuple[str, str | None]]:
    """What the params take from the hub: (repository, revision) of the model and of its SAEs."""
    found = [] if params.model.folder is not None else [(params.model.name, params.model.revision)]
    releases = [params.saes[name].release for name in params.study.saes]
    found += [(saes.repository(release), None) for release in releases if release is not None]
    return list(dict.fromkeys(found))


def pin(params: Params, *, update: bool = False) -> tuple[dict[str, str], dict[str, str]]:
    """Pin what the params take from the hub: (pins, why some are unpinned). What is pinned stays, unless updated.

    Where an update cannot reach the hub, what was pinned stays too; so does what other studies pinned.
    """
    if not (wanted := from_hub(params)):
        return {}, {}
    known = pins.read(pins.FILE) if pins.FILE.exists() else {}
    found, reasons = pins.resolve(wanted, {} if update else known)
    for name in reasons:
        found[name] = known.get(name, pins.UNPINNED)
    files.write_json(pins.FILE, known | found)
    return found, reasons


def unpinned(params: Params) -> list[str]:
    """What the params take from the hub at no fixed commit."""
    return sorted(pins.key(*wanted) for wanted in from_hub(params) if pins.commit(*wanted) is None)


def described(name: str) -> str:
    """What `preset list` says of a preset: model, SAEs, datasets, whether it is gated, and what it costs."""
    params = Params.read(file(name))
    model = params.model
    licence = "gated: needs its licence accepted, and HF_TOKEN" if model.name.startswith(GATED) else "not gated"
    loaded = {sae: params.saes[sae] for sae in params.study.saes}
    lines = [
        f"{name}{' (in use)' if name == in_use() else ''}",
        f"  model     {model.name} in {model.dtype}, layers {', '.join(map(str, model.layers))}; {licence}",
        *(f"  SAE       {sae}: {about.path or f'{about.release} {about.id}'}" for sae, about in loaded.items()),
        f"  datasets  {', '.join(params.study.datasets)}",
        f"  cost      {cost(params)}",
    ]
    return "\n".join(lines)


def cost(params: Params) -> str:
    """What a study will cost, by arithmetic on its params; `doctor` adds the time on a machine."""
    try:  # the time is not shown
        found = study_cost.estimate_cost(params, flops_per_s=1.0, on_cpu=False)
    except UserError as why:  # a folder of weights that is not pulled yet; the other presets are of use
        return f"unknown: {why}"
    return (
        f"{found.prompts:,} prompts, {found.download / 1e9:.1f} GB to download, {found.device / 1e9:.1f} GB on the "
        f"device, {found.flops / 1e15:,.1f} PFLOP of forward passes"
    )
