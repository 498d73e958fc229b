"""Do sparse-autoencoder features mean the same thing everywhere? Train probes on one dataset, test them on all.

    from sae_transfer import Study
    study = Study.open(".")
    rows = study.rows(study.space("narrow_3"), "passages")

The public names are imported when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_transfer.core.space import Space
    from sae_transfer.pipeline.study import Study
    from sae_transfer.probing.kinds import fit
    from sae_transfer.probing.probe import Probe
    from sae_transfer.probing.rows import Rows
    from sae_transfer.probing.scoring import transfer
    from sae_transfer.probing.search import rank_features

__all__ = ["Probe", "Rows", "Space", "Study", "__version__", "fit", "rank_features", "transfer"]

_HOMES = {
    "Study": "pipeline.study",
    "Space": "core.space",
    "Rows": "probing.rows",
    "Probe": "probing.probe",
    "rank_features": "probing.search",
    "fit": "probing.kinds",
    "transfer": "probing.scoring",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("sae-transfer")
    if name in _HOMES:
        return getattr(import_module(f"sae_transfer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sae_transfer' has no attribute '{name}'")
