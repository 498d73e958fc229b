"""fit_layer@<L>-<A> and fit_sae@<sae>-<A>: A's training rows in one space -> probes."""

import numpy as np
from threadpoolctl import threadpool_limits

from sae_transfer import config, paths, probe_files, probes, splits
from sae_transfer.probes import ProbeParams, Training
from sae_transfer.stages import inputs, run

SMALL = 1024  # rows or columns


def fit(space: str, dataset: str) -> None:
    params = config.read()
    section, seed = config.section(params, ProbeParams, "probe"), int(params["seed"])
    inputs.layer_of(space, params)  # an unknown space is refused before anything is read
    inputs.check_overrides(section, params)
    chosen, train = section.at(space, dataset), Training(*inputs.split_rows(space, dataset, "train"))
    method = probes.layer_probes if space.startswith("layer_") else probes.sae_probes
    # On matrices this small, several BLAS threads spend their time waiting for each other.
    with threadpool_limits(1 if min(train.X.shape) <= SMALL else None):
        fitted = method(train, seed, chosen)
        if chosen.matched_n_train < len(train):
            matched = train.rows(np.asarray(splits.subset(train.labels, chosen.matched_n_train)))
            fitted += method(matched, seed, chosen)
    probe_files.write(paths.PROBES / space / dataset, fitted)


if __name__ == "__main__":
    run(fit)
