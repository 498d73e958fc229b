"""encode: residual streams -> artifacts/features/<sae>/<dataset>.safetensors, and each SAE's directions beside them."""

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_transfer.artifacts import features
from sae_transfer.core import files, items, paths
from sae_transfer.core.arrays import Ints
from sae_transfer.core.errors import UserError
from sae_transfer.core.items import Item
from sae_transfer.core.space import Space, residual_stream
from sae_transfer.pipeline import inputs, stage
from sae_transfer.pipeline.study import Split, Study
from sae_transfer.probing.search import MIN_ROWS
from sae_transfer.results.warnings import LEAST_VARIANCE

USUAL_L0, ENTRY = 300, 8  # active features a row, generously; bytes for an index and a value


def run(study: Study) -> None:
    """Encodes every dataset with every SAE; an SAE is loaded once, when the first of its items needs it."""
    folder, recipe = study.path(paths.FEATURES), stage.version("encode", study.root)
    streams, hashes = items.made(study.path(paths.ACTIVATIONS)), inputs.read(study)["saes"]
    wanted = []
    for space in study.saes:
        shared = {"sae": hashes[space.name], "layer": space.layer, "override": study.params.saes[space.sae].override}
        encoded = [_item(study, space, dataset, streams, shared) for dataset in study.datasets]
        of_all = shared | {"features": [item.identity(recipe) for item in encoded]}
        wanted += [*encoded, Item(f"{space.name}.directions", (space, None), of_all)]
    items.run(folder, wanted, Encoder(study), recipe, single_thread=False)


def _item(study: Study, space: Space, dataset: str, streams: Mapping[str, str], shared: Mapping[str, Any]) -> Item:
    layer = residual_stream(int(space.layer or 0)).name
    of = [streams[f"{layer}/{dataset}.{number}"] for number in range(len(study.shards(dataset)))]
    return Item(f"{space.name}/{dataset}", (space, dataset), {**shared, "activations": of})


class Encoder:
    """Makes items with one SAE at a time."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.folder = study.path(paths.FEATURES)
        self.loaded: tuple[str, Any] = ("", None)

    def __call__(self, wanted: Sequence[Item]) -> dict[str, list[Path]]:
        made = {}
        for item in wanted:
            space, dataset = item.args
            path = self.folder / f"{item.name}.safetensors"
            if dataset is None:
                self._directions(space, path)
            else:
                self._features(space, dataset, path)
            made[item.name] = [path]
        return made

    def _sae(self, space: Space) -> Any:
        from sae_transfer.model import saes

        if self.loaded[0] != space.sae:
            self.loaded = (space.sae, saes.load_sae(space.sae, self.study.sae(space)))
        return self.loaded[1]

    def _features(self, space: Space, dataset: str, path: Path) -> None:
        from sae_transfer.model import encoding, saes

        sae, params = self._sae(space), self.study.params.saes[space.sae]
        rows = self.study.activations(int(space.layer or 0), dataset)
        files.check_room(self.folder, len(rows) * USUAL_L0 * ENTRY)
        about, revision = self.study.about_activations(dataset), self.study.params.model.revision
        source = saes.check_fits(space.sae, params, sae, about, revision)
        if params.release and not source["pinned"]:
            print(f"saes.{space.sae}: unpinned, read at commit {source['revision']}", file=sys.stderr)
        found = encoding.encode(sae, space.sae, rows)
        explained = found.health.explained_variance
        if explained < LEAST_VARIANCE and not params.override:
            raise UserError(
                f"saes.{space.sae}: it explains {explained:.2f} of the variance on {dataset}, worse than the mean "
                "activation: it was not trained on these activations; choose the SAE's own model, layer and chat "
                f"template, or set saes.{space.sae}.override: true"
            )
        features.write(path, found.features, found.health, source, found.norms)

    def _directions(self, space: Space, path: Path) -> None:
        from sae_transfer.model import encoding

        sae, fires = self._sae(space), _Firing(self.study, space)
        directions = encoding.directions(sae, np.flatnonzero(fires.often))
        features.write_directions(path, directions, encoding.decoder(sae, np.flatnonzero(fires.at_all)))


class _Firing:
    """Which features of an SAE fire on any prompt, and which on enough training rows of some dataset to be ranked."""

    def __init__(self, study: Study, space: Space) -> None:
        self.study, self.space = study, space

    @cached_property
    def at_all(self) -> NDArray[np.bool_]:
        fires: NDArray[np.bool_] = np.any([self._counts(dataset, None) > 0 for dataset in self.study.datasets], axis=0)
        return fires

    @cached_property
    def often(self) -> NDArray[np.bool_]:
        fires: NDArray[np.bool_] = np.any(
            [self._counts(dataset, "train") >= MIN_ROWS for dataset in self.study.datasets], axis=0
        )
        return fires

    def _counts(self, dataset: str, split: Split | None) -> Ints:
        X = self.study.matrix(self.space, dataset)
        if split is not None:
            X = X[self.study.at(dataset, split)]
        counts: Ints = np.bincount(X.indices, X.data > 0, X.shape[1])
        return counts
