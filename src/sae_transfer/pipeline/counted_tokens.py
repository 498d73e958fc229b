"""What `data check` counted of the prompts' tokens, kept for `doctor`: as long as nothing that decides them changes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sae_transfer.core import files, hashing
from sae_transfer.data.overview import TokenCounts
from sae_transfer.pipeline.params import Params

RECORD = Path("artifacts/tokens.json")
OF_MODEL = ("name", "revision", "chat_template", "prepend_bos")  # what of the model's params decides tokens


class Counted(NamedTuple):
    """Of all prompts of a dataset: how many tokens, and how many the longest has."""

    total: int
    longest: int


def write(params: Params, found: Mapping[str, TokenCounts]) -> None:
    """Keeps these datasets' counts, beside those of others that still hold."""
    kept = _read() | {name: {"of": _of(params, name), "tokens": [c.total, c.longest]} for name, c in found.items()}
    files.write_json(RECORD, kept)


def read(params: Params) -> dict[str, Counted]:
    """By dataset of the study, what was counted of it as it is now."""
    known = _read()
    return {
        name: Counted(*known[name]["tokens"])
        for name in params.study.datasets
        if name in known and known[name]["of"] == _of(params, name)
    }


def _read() -> dict[str, Any]:
    try:
        found = json.loads(RECORD.read_text(encoding="utf-8"))
        return {name: entry for name, entry in found.items() if {"of", "tokens"} <= entry.keys()}
    except (OSError, ValueError, AttributeError):  # nothing counted yet, or damaged
        return {}


def _of(params: Params, name: str) -> str:
    """What decides the tokens of a dataset's prompts; empty where its files are not there."""
    dataset = params.datasets[name]
    if not all(path.exists() for path in dataset.raw_files):
        return ""
    model = params.model.model_dump(mode="json", include=set(OF_MODEL))
    raw = [hashing.tree_sha256(path) for path in dataset.raw_files]
    return hashing.digest([dataset.model_dump(mode="json"), raw, params.seed, model])
