"""fit_layer@<L>-<A> and fit_sae@<sae>-<A>: A's training rows in one space -> probes, baselines and controls."""

from collections.abc import Mapping

from threadpoolctl import threadpool_limits

from sae_transfer import baselines, config, features, paths, probe_files, probes
from sae_transfer.probes import Matrix, Probe, ProbeParams, Training
from sae_transfer.stages import inputs, run

SMALL = 1024  # rows or columns


def fit(space: str, dataset: str) -> None:
    params = config.read()
    section, seed = config.section(params, ProbeParams, "probe"), int(params["seed"])
    layer = inputs.layer_of(space, params)  # an unknown space is refused before anything is read
    inputs.check_overrides(section, params)
    chosen = section.at(space, dataset)
    table = inputs.prompt_table(dataset)
    wanted = inputs.training_rows(table)
    labels, groups = table["label"].to_numpy()[wanted], table["group"].to_numpy().astype(str)[wanted]
    matrices: dict[str, Matrix] = {"space": inputs.space_rows(space, dataset, table)}
    if not space.startswith("layer_"):
        matrices["residual"] = inputs.residual_rows(layer, dataset, table)
        matrices["reconstruction"] = features.read_reconstruction(paths.FEATURES / dataset, space)
    train = {name: Training(X[wanted], labels, groups) for name, X in matrices.items()}
    fitted: list[Probe] = []
    # On matrices this small, several BLAS threads spend their time waiting for each other.
    with threadpool_limits(1 if min(train["space"].X.shape) <= SMALL else None):
        for rows in inputs.matched_sizes(labels, chosen):
            fitted += _fitted({name: part.rows(rows) for name, part in train.items()}, seed, chosen)
    probe_files.write(paths.PROBES / space / dataset, fitted)


def _fitted(train: Mapping[str, Training], seed: int, params: ProbeParams) -> list[Probe]:
    rows = train["space"]
    if "residual" not in train:
        return probes.layer_probes(rows, seed, params) + baselines.layer_baselines(rows, seed, params)
    own = probes.sae_probes(rows, seed, params)
    return own + baselines.sae_baselines(rows, train["residual"], train["reconstruction"], own, seed, params)


if __name__ == "__main__":
    run(fit)
