"""The demo's params as plain values, to change and to write: every section is there."""

from pathlib import Path
from typing import Any

import yaml

from sae_transfer.core.params_section import parse, read_yaml
from sae_transfer.pipeline.params import Params

PRESETS = Path(__file__).parents[1] / "presets"


def demo(**sections: Any) -> dict[str, Any]:
    """A copy of the demo's params, with other sections in place of its own."""
    return read_yaml(PRESETS / "demo.yaml") | sections


def parsed(params: dict[str, Any]) -> Params:
    return parse(Params, params)


def write(params: dict[str, Any], path: Path = Path("params.yaml")) -> None:
    path.write_text(yaml.safe_dump(params, sort_keys=False))
