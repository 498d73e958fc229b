"""What the stages share: how many processes, and where each stage's recipe version stands."""

import os
from pathlib import Path

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import read_yaml

VERSIONS = Path("versions.yaml")


def jobs(wanted: int | None) -> int:
    """How many processes work in parallel: as the params say, else as many as this process may use cores."""
    if wanted:
        return wanted
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len(cores)


def version(stage: str, root: Path) -> str:
    """The version of a stage's recipe: it changes where the same inputs would give other bytes.

    Raises:
        UserError: `versions.yaml` is missing or broken, or has no version of this stage.
    """
    versions = read_yaml(root / VERSIONS)
    if stage not in versions:
        raise UserError(f"{VERSIONS}: has no version of {stage}; restore it with git")
    return f"{stage} {versions[stage]}"
