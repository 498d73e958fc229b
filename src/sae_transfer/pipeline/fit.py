"""fit: A's training rows in a space -> artifacts/probes/<space>/<A>.safetensors: probes, baselines and controls."""

from pathlib import Path

from sae_transfer.core import hashing, items, paths
from sae_transfer.core.items import Item
from sae_transfer.core.space import Space, residual_stream
from sae_transfer.pipeline import stage
from sae_transfer.pipeline.study import Study
from sae_transfer.probing import probe_files
from sae_transfer.probing.kinds import Sources, fit

CODE = (
    "core/randomness.py",
    "data/overlap.py",
    "data/splits.py",
    "stats",
    "artifacts",
    "probing",
    "pipeline/study.py",
    "pipeline/fit.py",
)


def run(study: Study) -> None:
    """Fits the probes of every space and dataset."""
    folder, made = study.path(paths.PROBES), rows_made(study)
    wanted = []
    for space in study.spaces:
        for dataset in study.datasets:
            chosen = study.params.probe.at(space.name, dataset).model_dump(mode="json")
            inputs = {"seed": study.seed, "probe": chosen, "rows": made(space, dataset)}
            wanted.append(Item(f"{space.name}/{dataset}", (study, space, dataset), inputs))
    items.run(folder, wanted, items.each(fit_item), hashing.code(*CODE), jobs=stage.jobs(study.params.jobs))


class rows_made:  # noqa: N801, reads as a function
    """By space and dataset, the hash of all that its rows come from."""

    def __init__(self, study: Study) -> None:
        self.prompts = items.made(study.path(paths.PROMPTS))
        self.streams = items.made(study.path(paths.ACTIVATIONS))
        self.features = items.made(study.path(paths.FEATURES))
        self.shards = {dataset: range(len(study.shards(dataset))) for dataset in study.datasets}

    def __call__(self, space: Space, dataset: str) -> list[str]:
        layer = residual_stream(int(space.layer or 0)).name
        found = [self.prompts[dataset], *(self.streams[f"{layer}/{dataset}.{n}"] for n in self.shards[dataset])]
        if space.sae:
            found += [self.features[f"{space.sae}/{dataset}"], self.features[f"{space.sae}.directions"]]
        return found


def fit_item(study: Study, space: Space, dataset: str) -> list[Path]:
    """Writes every probe of one space and dataset, trained on all of A's training rows and on the matched number."""
    rows, params = study.rows(space, dataset), study.params.probe.at(space.name, dataset)
    at = study.at(dataset)
    stream = study.rows(residual_stream(int(space.layer or 0)), dataset)
    rebuilt = study.labelled(study.reconstruction(space, dataset, at), dataset, at) if space.sae else None
    found = []
    for size in study.sizes(rows.labels):
        part = Sources(
            rows.take(size), stream.take(size), rebuilt.take(size) if rebuilt else None, f"{space.name}/{dataset}"
        )
        found += fit(space, part, study.seed, params)
    path = study.path(paths.PROBES) / space.name / f"{dataset}.safetensors"
    probe_files.write(path, found)
    return [path]
