"""Do sparse-autoencoder features mean the same thing everywhere? Train probes on one dataset, test them on all.

    from sae_transfer import Study
    study = Study.open(".")
    study.headline()                                        # a DataFrame
    study.probe("narrow_3", "passages", "sparse_1")         # a probe that the study chose

docs/python.md shows the rest. The public names are imported when they are first used, so that importing the package
costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sae_transfer.core.errors import UserError
    from sae_transfer.core.space import Space
    from sae_transfer.pipeline.detector import Detector
    from sae_transfer.pipeline.own_rows import transfer
    from sae_transfer.pipeline.study import Study
    from sae_transfer.probing.estimators import MeanDifferenceProbe, ResidualProbe, SparseProbe
    from sae_transfer.probing.kinds import fit
    from sae_transfer.probing.probe import Probe
    from sae_transfer.probing.ranking import rank_features
    from sae_transfer.probing.rows import Rows
    from sae_transfer.report.figures.picture import heatmap

__all__ = [
    "Detector",
    "MeanDifferenceProbe",
    "Probe",
    "ResidualProbe",
    "Rows",
    "Space",
    "SparseProbe",
    "Study",
    "UserError",
    "__version__",
    "fit",
    "heatmap",
    "rank_features",
    "transfer",
]

_HOMES = {
    "Study": "pipeline.study",
    "Detector": "pipeline.detector",
    "transfer": "pipeline.own_rows",
    "Rows": "probing.rows",
    "rank_features": "probing.ranking",
    "SparseProbe": "probing.estimators",
    "ResidualProbe": "probing.estimators",
    "MeanDifferenceProbe": "probing.estimators",
    "heatmap": "report.figures.picture",
    "Probe": "probing.probe",
    "fit": "probing.kinds",
    "Space": "core.space",
    "UserError": "core.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("sae-transfer")
    if name in _HOMES:
        return getattr(import_module(f"sae_transfer.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'sae_transfer' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
