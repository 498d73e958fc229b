"""params.yaml as one frozen object. Each section is a class beside the code that it is for."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, NonNegativeInt, PositiveInt, model_validator

from sae_transfer.analyses.generalization import GeneralizationParams
from sae_transfer.analyses.regimes import RegimeParams
from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.names import check_name, check_names
from sae_transfer.core.params_section import PARAMS_FILE, Names, ParamsSection, parse, read_yaml
from sae_transfer.core.space import Space, residual_stream, sae_features
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.data.prompt_templates import TEMPLATES
from sae_transfer.model.model_params import ModelParams, SaeParams
from sae_transfer.model.verbal import VerbalParams
from sae_transfer.probing.evaluations import TransferParams
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.resampling import BootstrapParams
from sae_transfer.tracking import TrackingParams
from sae_transfer.tuning.search_space import SweepParams


def _named(what: str) -> BeforeValidator:
    """A section of sections by name: the names are checked before all else, since messages repeat them.

    YAML reads a dataset named 2024 as a number; null it reads as nothing, which no name can mean.
    """

    def check(section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        if None in section:
            raise ValueError("a name is null; put quotes around it")
        check_names(list(map(str, section)), what)
        return {str(key): value for key, value in section.items()}

    return BeforeValidator(check)


class StudyParams(ParamsSection):
    """Section `study`: the datasets and SAEs that the study is made of."""

    datasets: Names
    saes: Names


class Params(ParamsSection):
    """The whole params file."""

    seed: NonNegativeInt
    jobs: PositiveInt | None = None  # parallel processes; by default as many as the machine has cores
    study: StudyParams
    model: ModelParams
    saes: Annotated[dict[str, SaeParams], _named("SAE")]
    datasets: Annotated[dict[str, DatasetParams], _named("dataset")]
    probe: ProbeParams
    transfer: TransferParams
    bootstrap: BootstrapParams
    regimes: RegimeParams
    verbal: VerbalParams
    generalization: GeneralizationParams
    tracking: TrackingParams
    sweep: SweepParams

    @classmethod
    def read(cls, path: Path = PARAMS_FILE) -> "Params":
        """The params file, checked as far as it can be without looking at other files.

        Raises:
            UserError: it is missing or no YAML; a section, key or name is unknown (with the closest names), missing or
                wrong, or two of them do not fit.
        """
        try:
            return parse(cls, read_yaml(path))
        except UserError as error:
            raise error if str(error).startswith(str(path)) else UserError(f"{path}: {error}") from None

    @property
    def layers(self) -> tuple[Space, ...]:
        """The residual streams of the study."""
        return tuple(residual_stream(layer) for layer in self.model.layers)

    @property
    def sae_spaces(self) -> tuple[Space, ...]:
        """The feature spaces of the study."""
        return tuple(sae_features(name, self.saes[name].layer) for name in self.study.saes)

    @model_validator(mode="after")
    def _fits(self) -> "Params":
        for name in self.saes:
            if name in ProbeParams.model_fields:  # `probe.N` would be both its overrides and a setting
                raise UserError(f"SAE {name!r}: probe.{name} is a setting; choose another name")
        if self.tracking.uri is None:  # a folder of mlruns/ has its name
            check_name(self.tracking.experiment, "tracking.experiment")
        _check_listed("study.datasets", self.study.datasets, self.datasets)
        _check_listed("study.saes", self.study.saes, self.saes)
        _check_listed("regimes.datasets", self.regimes.datasets, self.study.datasets)
        if not self.study.datasets:
            raise UserError("study.datasets is empty; name at least one dataset")
        self._check_datasets()
        self._check_saes()
        self._check_overrides()
        self.sweep.check_grid(self.probe)
        return self

    def _check_datasets(self) -> None:
        for name in self.study.datasets:
            dataset = self.datasets[name]
            for template in (dataset.template, *dataset.variations):
                if template not in TEMPLATES:
                    raise UserError(f"datasets.{name}: template {template} is unknown; {closest(template, TEMPLATES)}")
            most = 2 * min(dataset.n_train.answerable, dataset.n_train.unanswerable)
            if most < self.probe.matched_n_train < dataset.n_train.total:
                raise UserError(
                    f"probe.matched_n_train = {self.probe.matched_n_train}, but datasets.{name}.n_train "
                    f"balances {most} rows at most; set it to {most} or less"
                )

    def _check_saes(self) -> None:
        for name in self.study.saes:
            if (layer := self.saes[name].layer) not in self.model.layers:
                raise UserError(f"saes.{name} reads layer {layer}; add it to model.layers {list(self.model.layers)}")

    def _check_overrides(self) -> None:
        spaces = {*self.saes, *(space.name for space in self.layers)}
        for space, trains in self.probe.overrides.items():
            if space not in spaces:
                raise UserError(f"probe.{space} names no space; {closest(space, spaces)}")
            for train, chosen in trains.items():
                where = f"probe.{space}.{train}"
                if train not in self.datasets:
                    raise UserError(f"{where} names no dataset; {closest(train, self.datasets)}")
                if space not in self.saes and (others := sorted(chosen.model_fields_set - {"C_grid"})):
                    raise UserError(f"{where}.{others[0]}: the probes of a layer have C_grid alone; delete it")


def _check_listed(where: str, names: Iterable[str], defined: Iterable[str]) -> None:
    known, seen = set(defined), set[str]()
    for name in names:
        if name not in known:
            check_name(name, where)
            raise UserError(f"{where} names {name}, which is not defined; {closest(name, known)}")
        if name in seen:
            raise UserError(f"{where} names {name} twice; delete one")
        seen.add(name)
