"""encode@<dataset>: residual streams -> SAE features as sparse rows, every SAE of the study in one process."""

import hashlib

from tqdm import tqdm

from sae_transfer import activations, config, features, paths, store
from sae_transfer.features import SaeParams
from sae_transfer.stages import run

USUAL_L0, ENTRY = 300, 8  # active features a row, generously; bytes for an index and a value


def encode(dataset: str) -> None:
    params = config.read()
    folder = paths.ACTIVATIONS / dataset
    for name in params["study"]["saes"]:
        chosen = config.section(params, SaeParams, "saes", name)
        rows = activations.read(folder, chosen.layer)
        store.check_room(paths.FEATURES, len(rows) * USUAL_L0 * ENTRY + rows.nbytes)
        sae = features.load_sae(name, chosen)
        with tqdm(total=len(rows), desc=f"{dataset} {name}", unit="rows") as bar:
            encoded, health, reconstruction = features.encode(sae, name, rows, bar.update)
        digest = hashlib.sha256(rows.tobytes()).hexdigest()
        features.write(paths.FEATURES / dataset, name, encoded, health, digest)
        features.write_reconstruction(paths.FEATURES / dataset, name, reconstruction)


if __name__ == "__main__":
    run(encode)
