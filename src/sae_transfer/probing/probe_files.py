"""Saved probes: one safetensors file, whose metadata hold everything that is no array."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sae_transfer.core.errors import UserError
from sae_transfer.core.files import read_arrays, write_arrays
from sae_transfer.probing.probe import Probe

ARRAYS = ("weights", "feature_ids", "encoder", "oof_logits")


def write(path: Path, probes: Sequence[Probe]) -> None:
    """The probes in order: arrays as `<position>.<name>`, the rest as a list of objects in the metadata."""
    arrays: dict[str, np.ndarray] = {}
    about: list[dict[str, Any]] = []
    for i, probe in enumerate(probes):
        arrays |= {f"{i}.{name}": value for name in ARRAYS if (value := getattr(probe, name)) is not None}
        plain = {key: value for key, value in asdict(probe).items() if key not in ARRAYS}
        about.append({key: None if value != value else value for key, value in plain.items()})
    write_arrays(path, arrays, {"probes": json.dumps(about, sort_keys=True)})


def read(path: Path) -> list[Probe]:
    """The probes that `write` wrote, in order.

    Raises:
        UserError: the file is missing or damaged.
    """
    arrays, told = read_arrays(path)
    try:
        return [_probe(about, arrays, i) for i, about in enumerate(json.loads(told["probes"]))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no probes of this version ({error}); delete it and run `dvc repro`") from None


def _probe(about: dict[str, Any], arrays: dict[str, np.ndarray], i: int) -> Probe:
    fields: dict[str, Any] = {key: np.nan if value is None else value for key, value in about.items()}
    fields |= {name: arrays.get(f"{i}.{name}") for name in ARRAYS[1:]}
    return Probe(**fields, weights=arrays[f"{i}.weights"])
