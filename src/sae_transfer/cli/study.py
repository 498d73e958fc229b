"""`sae-transfer check`, `prune` and `summary`: what looks after a study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sae_transfer import config, paths, store


def check() -> None:
    """Check params.yaml before a run: every section, every name, and that files and layers are there."""
    from sae_transfer import presets
    from sae_transfer.checks import check_params

    params = config.read()
    check_params(params)
    for name in presets.unpinned(params):
        print(f"{name} is unpinned: another run may take another version; `sae-transfer preset pin` pins it")
    print("params.yaml is in order")


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete outputs of datasets, SAEs and layers that params.yaml no longer names."""
    import shutil

    for path in _leftovers(config.read()):
        print(f"{'would delete' if dry_run else 'deleting'} {path}")
        if not dry_run:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _leftovers(params: Mapping[str, Any]) -> list[Path]:
    from sae_transfer.checks import check_names
    from sae_transfer.models import ModelParams
    from sae_transfer.stages import inputs

    study = check_names(params)  # a mistyped name must not delete the outputs of the name that was meant
    layers = config.section(params, ModelParams, "model").layers
    spaces = {*study.saes, *(f"layer_{layer}" for layer in layers)}
    datasets, defined = set(study.datasets), set(params["datasets"])
    named = {
        paths.PROMPTS: defined,
        paths.ACTIVATIONS: datasets,
        paths.FEATURES: datasets,
        paths.DIRECTIONS: set(study.saes),
        paths.PROBES: spaces,
        paths.BOOTSTRAP: spaces,
        paths.BOOTSTRAP_TABLES: spaces | {f"{sae}_features" for sae in study.saes},
        paths.SCORES: {*spaces, *inputs.WITHOUT_LAYER},
        paths.TRANSFER: {*spaces, *inputs.WITHOUT_LAYER},
    } | {paths.PROBES / space: datasets for space in spaces}
    return [path for folder, names in named.items() for path in _others(folder, names)]


def _others(folder: Path, names: set[str]) -> list[Path]:
    present = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in present if (path.name if path.is_dir() else path.stem) not in names]


def summary() -> None:
    """Say in a few lines what the last `dvc repro` found, and where to look."""
    for space, kinds in store.read_json(paths.RESULTS / "metrics.json").items():
        for kind, scores in kinds.items():
            if "auc_ood" in scores:
                inside, outside = (_decimals(scores[name]) for name in ("auc_in_domain", "auc_ood"))
                print(f"{space:>12}  {kind:<16} mean AUC in domain {inside}, out of domain {outside}")
    print(f"\nresults/transfer.csv holds every number; open {paths.REPORT / 'index.html'} in a browser.")


def _decimals(score: float | None) -> str:
    return "nan" if score is None else f"{score:.3f}"
