"""resample: A's groups drawn again and every probe trained anew -> artifacts/resamples/<space>/."""

from pathlib import Path

from sae_transfer.analyses import stability
from sae_transfer.artifacts import resamples
from sae_transfer.core import files, hashing, items, paths
from sae_transfer.core.items import Item
from sae_transfer.core.space import Space
from sae_transfer.pipeline import stage
from sae_transfer.pipeline.fit import CODE as FIT_CODE
from sae_transfer.pipeline.fit import rows_made
from sae_transfer.pipeline.study import Study

CODE = (*FIT_CODE, "results/schema.py", "analyses/stability.py", "pipeline/resample.py")


def run(study: Study) -> None:
    """Resamples the training rows of every space and dataset."""
    folder, made, probes = study.path(paths.RESAMPLES), rows_made(study), items.made(study.path(paths.PROBES))
    wanted = []
    for space in study.spaces:
        of_all = [made(space, name) for name in study.datasets]
        for name in study.datasets:
            inputs = {
                "seed": study.seed,
                "bootstrap": study.params.bootstrap.model_dump(mode="json"),
                "probe": study.params.probe.at(space.name, name).model_dump(mode="json"),
                "probes": probes[f"{space.name}/{name}"],
                "rows": of_all,
            }
            wanted.append(Item(f"{space.name}/{name}", (study, space, name), inputs))
    items.run(folder, wanted, items.each(resample), hashing.code(*CODE), jobs=stage.jobs(study.params.jobs))


def resample(study: Study, space: Space, dataset: str) -> list[Path]:
    """Writes what became of one A's probes on other training samples, as tables and for other analyses."""
    found = stability.resample(study, space, dataset)
    stem = study.path(paths.RESAMPLES) / space.name
    made = [stem / f"{dataset}.{name}" for name in ("areas.parquet", "features.parquet", "safetensors")]
    files.write_table(made[0], found.areas)
    files.write_table(made[1], found.features)
    resamples.write(made[2], found.resampled)
    return made
