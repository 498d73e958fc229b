"""What the stages before `analyse` counted, as tables of results/."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from sae_transfer.artifacts import activations, features
from sae_transfer.core import paths
from sae_transfer.pipeline.study import Study
from sae_transfer.results.counts import DATASETS, HEALTH
from sae_transfer.results.headline import ALL


def datasets(study: Study) -> pd.DataFrame:
    """The rows of results/datasets.csv."""
    rows = []
    for name in study.datasets:
        prompts = study.prompts(name)
        shards = [study.about_activations(name, number) for number in range(len(study.shards(name)))]
        checks = [found for shard in _shards(study, name) if (found := activations.read_checks(shard))]
        own = prompts[prompts["variation"] == prompts["variation"].iloc[0]]
        rows.append(
            {
                "dataset": name,
                "n_train": int((own["split"] == "train").sum()),
                "n_test": int((own["split"] == "test").sum()),
                "prompts": len(prompts),
                "words": max(len(prompt.split()) for prompt in prompts["prompt"]),
                "truncated": sum(about["truncated_prompts"] for about in shards),
                "unknown_tokens": sum(about["unknown_tokens"] for about in shards),
                "tokens": max((check.longest for check in checks), default=None),
                "batch_difference": max((check.padded for check in checks if check.padded is not None), default=None),
                "padding": next((check.padding for check in checks if check.padding == "none"), "right"),
                "whole_difference": max((check.whole for check in checks if check.whole is not None), default=None),
            }
        )
    return DATASETS.frame(rows)


def _shards(study: Study, dataset: str) -> Iterator[Path]:
    """The files of a dataset's activations, of every layer."""
    for layer in study.layers:
        for number in range(len(study.shards(dataset))):
            yield study.path(paths.ACTIVATIONS) / layer.name / f"{dataset}.{number}.safetensors"


def health(study: Study) -> pd.DataFrame:
    """The rows of results/health.csv."""
    rows = []
    for space in study.saes:
        found = {name: study.health(space, name) for name in study.datasets}
        source = features.read_source(study.path(paths.FEATURES) / space.sae / f"{study.datasets[0]}.safetensors")
        shared = {"sae": space.sae, "layer": space.layer, "context_size": source.get("context_size")}
        rows += [shared | {"dataset": name} | vars(one) for name, one in found.items()]
        width = next(iter(found.values())).width
        means = {key: np.mean([vars(one)[key] for one in found.values()]) for key in ("l0", "explained_variance")}
        fired = len(study.decoder(space).feature_ids)
        rows.append(shared | {"dataset": ALL, "width": width, "dead": 1 - fired / width} | means)
    return HEALTH.frame(rows)
