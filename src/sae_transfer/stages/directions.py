"""directions: where the features that fire lie in the residual stream, every SAE of the study in one process."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from sae_transfer import config, features, paths
from sae_transfer.features import SaeParams
from sae_transfer.search import MIN_ROWS
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams


def directions() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    for name in study.saes:
        often = np.any([_fires_often(inputs.training(name, dataset).X) for dataset in study.datasets], axis=0)
        sae = features.load_sae(name, config.section(params, SaeParams, "saes", name), Path(study.saes_identity))
        found = features.directions(sae, np.flatnonzero(often))
        features.write_directions(paths.DIRECTIONS / f"{name}.safetensors", found)


def _fires_often(X: sparse.csr_array) -> NDArray[np.bool_]:
    fires: NDArray[np.bool_] = np.bincount(X.indices, X.data > 0, X.shape[1]) >= MIN_ROWS
    return fires


if __name__ == "__main__":
    run(directions)
