"""Links to Neuronpedia's page of a feature, where the SAE has one."""

import importlib.util
import json
import re
from pathlib import Path

import yaml

from sae_transfer.model.model_params import SaeParams

SITE = "https://www.neuronpedia.org"


def link(neuronpedia_id: str, feature: int) -> str:
    return f"{SITE}/{neuronpedia_id}/{feature}" if neuronpedia_id else ""


def id_of(sae: SaeParams) -> str:
    """The SAE's id on Neuronpedia (`gemma-2-9b-it/20-gemmascope-res-131k`), empty where it has none.

    For an SAE in a folder, from its cfg.json; for a release, from the list that SAELens ships, whose file is read
    without importing SAELens, since that takes seconds.
    """
    if sae.path is not None:
        path = sae.path / "cfg.json"
        metadata = json.loads(path.read_text(encoding="utf-8")).get("metadata") if path.is_file() else None
        return str((metadata or {}).get("neuronpedia_id") or "")
    return _listed(str(sae.release), str(sae.id))


def _listed(release: str, name: str) -> str:
    package = importlib.util.find_spec("sae_lens")
    folders = (package.submodule_search_locations if package else None) or []
    for path in (Path(folder) / "pretrained_saes.yaml" for folder in folders):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        # the list is long and YAML slow: only this release's lines are parsed
        block = re.search(rf"^{re.escape(release)}:\n(?:[ -].*\n|\n)+", text, re.MULTILINE)
        saes = yaml.safe_load(block[0])[release].get("saes", []) if block else []
        return next((str(sae.get("neuronpedia") or "") for sae in saes if sae["id"] == name), "")
    return ""
