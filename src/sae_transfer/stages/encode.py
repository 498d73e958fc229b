"""encode@<dataset>: residual streams -> SAE features as sparse rows, every SAE of the study in one process."""

import hashlib
import sys
from pathlib import Path

from tqdm import tqdm

from sae_transfer import activations, config, features, paths, saes, store
from sae_transfer.saes import SaeParams
from sae_transfer.stages import run

USUAL_L0, ENTRY = 300, 8  # active features a row, generously; bytes for an index and a value


def encode(dataset: str) -> None:
    params = config.read()
    folder, identity = paths.ACTIVATIONS / dataset, Path(params["study"]["saes_identity"])
    made = activations.read_identity(folder)
    for name in params["study"]["saes"]:
        chosen = config.section(params, SaeParams, "saes", name)
        rows = activations.read(folder, chosen.layer)
        store.check_room(paths.FEATURES, len(rows) * USUAL_L0 * ENTRY + rows.nbytes)
        sae = features.load_sae(name, chosen, identity)
        source = saes.check_fits(name, chosen, sae, made)
        if chosen.release and not source["pinned"]:
            print(f"saes.{name}: unpinned, read at commit {source['revision']}", file=sys.stderr)
        with tqdm(total=len(rows), desc=f"{dataset} {name}", unit="rows") as bar:
            encoded, health, reconstruction = features.encode(sae, name, rows, bar.update)
        digest = hashlib.sha256(rows.tobytes()).hexdigest()
        features.write(paths.FEATURES / dataset, name, encoded, health, digest, source)
        features.write_reconstruction(paths.FEATURES / dataset, name, reconstruction)


if __name__ == "__main__":
    run(encode)
