"""What a sweep found, as plain frozen records: what a summary file, MLflow and `--apply` read."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sae_transfer.core.errors import UserError
from sae_transfer.tuning.search_space import Choice


@dataclass(frozen=True)
class Trial:
    """One trial. `params` are C, N, ranking and scaling, `value` is the cross-validated AUC on A's training rows.

    `state` is complete, or fail for a trial that a kill interrupted (its value is None). `log_loss` is cross-validated
    too: AUC does not see whether probabilities are right, and many trials may reach the same. `attributes` of a chosen
    trial hold `auc.<B>`, `auc_low.<B>`, `auc_high.<B>` on every B's test rows; no sampler reads them.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    value: float | None
    attributes: Mapping[str, Any]
    log_loss: float | None = None

    @property
    def choice(self) -> Choice:
        return Choice(**self.params)


@dataclass(frozen=True)
class Sweep:
    """The trials of one (SAE, A) under a study's name; `params` say what was searched, and on which rows."""

    study: str
    space: str
    train: str
    params: Mapping[str, Any]
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        return f"{self.study}/{self.space}/{self.train}"

    @property
    def complete(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "complete"]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that no other beats in AUC without using more features, from few features to many.

    One trial a point: ties as for the winner.
    """
    best: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial.params["N"], *_order(trial))):
        if not best or _area(trial) > _area(best[-1]):
            best.append(trial)
    return best


def winner(sweep: Sweep, n_max: int | None = None) -> Trial:
    """The complete trial with the best AUC among those of at most `n_max` features.

    Ties go to the smaller N, then to the smaller log loss, then to the smaller C.

    Raises:
        UserError: there is none.
    """
    allowed = [trial for trial in sweep.complete if n_max is None or trial.params["N"] <= n_max]
    if not allowed:
        limit = "" if n_max is None else f" with at most {n_max} features"
        raise UserError(f"study {sweep.study}: no complete trial of {sweep.space}/{sweep.train}{limit}; run the sweep")
    return min(allowed, key=_order)


def chosen(sweep: Sweep) -> list[Trial]:
    """The trials that are worth a look at the test rows: the winner, or in mode pareto the front."""
    return front(sweep.complete) if sweep.params["mode"] == "pareto" else [winner(sweep)]


def _area(trial: Trial) -> float:
    return trial.value if trial.value is not None else float("-inf")


def _order(trial: Trial) -> tuple[float, int, float, float, int]:
    loss = trial.log_loss if trial.log_loss is not None else float("inf")
    return -_area(trial), trial.params["N"], loss, trial.params["C"], trial.number
