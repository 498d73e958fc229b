"""params.yaml checked as a whole before anything runs."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from sae_transfer import config, prompts
from sae_transfer.datasets import DatasetParams
from sae_transfer.features import SaeParams
from sae_transfer.generalization import GeneralizationParams
from sae_transfer.models import ModelParams
from sae_transfer.probes import ProbeParams
from sae_transfer.records import UserError, closest
from sae_transfer.regimes import RegimeParams
from sae_transfer.resampling import BootstrapParams
from sae_transfer.stages import inputs
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.store import brought_by, missing
from sae_transfer.tracking import TrackingParams
from sae_transfer.transfer import TransferParams
from sae_transfer.tuning.sweep import check_sweep
from sae_transfer.verbal import VerbalParams

SECTIONS = (
    *("seed", "study", "model", "saes", "datasets", "probe", "transfer"),
    *("bootstrap", "regimes", "verbal", "generalization", "tracking", "sweep"),
)


def check_params(params: Mapping[str, Any]) -> None:
    """Every section as its class, and what no section can tell alone.

    Raises:
        UserError: an unknown section or key, a name that is not defined, a template that does not exist, an SAE on a
            layer that is not extracted, or a file that is not there.
    """
    study = check_names(params)
    model = config.section(params, ModelParams, "model")
    inputs.check_overrides(config.section(params, ProbeParams, "probe"), params)
    config.section(params, TransferParams, "transfer")
    config.section(params, BootstrapParams, "bootstrap")
    _check_defined("regimes.datasets", config.section(params, RegimeParams, "regimes").datasets, study.datasets)
    config.section(params, VerbalParams, "verbal")
    check_sweep(params)
    config.section(params, GeneralizationParams, "generalization")
    config.section(params, TrackingParams, "tracking")
    for name in study.saes:
        layer = config.section(params, SaeParams, "saes", name).layer
        if layer not in model.layers:
            raise UserError(
                f"params.yaml: saes.{name} reads layer {layer}; add it to model.layers {list(model.layers)}"
            )
    needed = [model.identity, Path(study.saes_identity)]
    for name in params["datasets"]:
        dataset = config.section(params, DatasetParams, "datasets", name)
        files = (*dataset.train_files, *dataset.test_files)
        needed += [dataset.path / file for file in files] or [dataset.path]
        for template in (dataset.template, *dataset.variations):
            if template not in prompts.TEMPLATES:
                known = closest(template, prompts.TEMPLATES)
                raise UserError(f"params.yaml: datasets.{name}: template {template} is unknown; {known}")
    for path in needed:
        if not path.exists():
            raise missing(path) if brought_by(path) else UserError(f"{path}: not found; correct it in params.yaml")


def check_names(params: Mapping[str, Any]) -> StudyParams:
    """The section `study`, all of whose names are defined, in a file without unknown sections.

    Raises:
        UserError: otherwise, with the closest names.
    """
    for name in params:
        if name not in SECTIONS:
            raise UserError(f"params.yaml: unknown section {name}; {closest(name, SECTIONS)}")
    study = config.section(params, StudyParams, "study")
    _check_defined("study.datasets", study.datasets, params["datasets"])
    _check_defined("study.saes", study.saes, params["saes"])
    return study


def _check_defined(where: str, names: Iterable[str], defined: Collection[str]) -> None:
    for name in names:
        if name not in defined:
            raise UserError(f"params.yaml: {where} names {name}, which is not defined; {closest(name, defined)}")
