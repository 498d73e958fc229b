"""transfer_layer@<L> and transfer_sae@<sae>: every probe of a space on every dataset's test rows."""

from sae_transfer import config, features, paths, probe_files
from sae_transfer.probes import Matrix
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.stages.testing import Collected, by_size, conditions
from sae_transfer.transfer import reference, target_trained


def transfer(space: str) -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    layer = inputs.layer_of(space, params)
    sae = "" if space.startswith("layer_") else space
    found = Collected(space, params["model"]["name"], layer, sae)
    fitted = {train: by_size(probe_files.read(paths.PROBES / space / train)) for train in study.datasets}
    residual = {
        (train, probe.n_train): probe
        for train in study.datasets
        for probe in probe_files.read(paths.PROBES / f"layer_{layer}" / train)
        if probe.kind == "residual"
    }
    for test in study.datasets:
        table = inputs.prompt_table(test)
        matrices: dict[str, Matrix] = {
            "space": inputs.space_rows(space, test, table),
            "residual": inputs.residual_rows(layer, test, table),
        }
        if sae:
            matrices["reconstruction"] = features.read_reconstruction(paths.FEATURES / test, sae)
        for condition in conditions(test, table, params):
            here = {name: X[condition.at] for name, X in matrices.items()}
            for train in study.datasets:
                if condition.name == "whole" and condition.test == train:
                    continue
                for n_train, probes in fitted[train].items():
                    against = reference(residual[train, n_train].score(here["residual"]), condition.rows)
                    if condition.name == "test":  # all of B's rows would hold those that the ceiling is trained on
                        probes = probes + target_trained(fitted[test], n_train, sorted(fitted[train]))
                    found.add(train, probes, condition, here, against, params)
    found.write()


if __name__ == "__main__":
    run(transfer)
