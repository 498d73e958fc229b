"""Saved probes: arrays as safetensors, everything else as JSON beside them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sae_transfer.probes import Probe
from sae_transfer.records import UserError
from sae_transfer.store import read_arrays, read_json, write_arrays, write_json

ARRAYS = ("weights", "feature_ids", "encoder")


def write(folder: Path, probes: list[Probe]) -> None:
    """`probes.json` (one object a probe, in order) and `probes.safetensors` (`<position>.weights`, other arrays)."""
    arrays: dict[str, np.ndarray] = {}
    about: list[dict[str, Any]] = []
    for i, probe in enumerate(probes):
        arrays |= {f"{i}.{name}": value for name in ARRAYS if (value := getattr(probe, name)) is not None}
        plain = {key: value for key, value in asdict(probe).items() if key not in ARRAYS}
        about.append({key: None if value != value else value for key, value in plain.items()})
    write_arrays(folder / "probes.safetensors", arrays, {})
    write_json(folder / "probes.json", about)


def read(folder: Path) -> list[Probe]:
    """The probes that `write` wrote, in order.

    Raises:
        UserError: a file is missing or damaged.
    """
    arrays, _ = read_arrays(folder / "probes.safetensors")
    described = read_json(folder / "probes.json")
    try:
        return [_probe(about, arrays, i) for i, about in enumerate(described)]
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}: probes.json and probes.safetensors do not fit ({error}); delete them and run `dvc repro`"
        ) from None


def _probe(about: dict[str, Any], arrays: dict[str, np.ndarray], i: int) -> Probe:
    fields: dict[str, Any] = {key: np.nan if value is None else value for key, value in about.items()}
    fields |= {name: arrays.get(f"{i}.{name}") for name in ARRAYS[1:]}
    return Probe(**fields, weights=arrays[f"{i}.weights"])
