"""directions: where the features that fire lie in the residual stream, every SAE of the study in one process."""

import numpy as np

from sae_transfer import config, features, paths
from sae_transfer.features import SaeParams
from sae_transfer.search import MIN_ROWS
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams


def directions() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    for name in study.saes:
        fires = np.zeros(0, dtype=bool)
        for dataset in study.datasets:
            X, _ = inputs.training_rows(name, dataset)
            often = np.bincount(X.indices, X.data > 0, X.shape[1]) >= MIN_ROWS
            fires = often | fires if len(fires) else often
        sae = features.load_sae(name, config.section(params, SaeParams, "saes", name))
        found = features.directions(sae, np.flatnonzero(fires))
        features.write_directions(paths.DIRECTIONS / f"{name}.safetensors", found)


if __name__ == "__main__":
    run(directions)
