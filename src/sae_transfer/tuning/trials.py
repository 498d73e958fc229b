"""What a sweep found, as plain frozen records: what a summary file, MLflow and `--apply` read."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import pandas as pd

from sae_transfer.core.errors import UserError
from sae_transfer.tuning.objective import sign
from sae_transfer.tuning.search_space import Choice

TIE = 0.001  # trials that differ by less are as good as each other
REACHED = ("auc_in_domain", "auc_in_domain_low", "auc_in_domain_high", "auc_ood")


@dataclass(frozen=True)
class Trial:
    """One trial. `params` are C, N, ranking and scaling, `value` is the objective on A's training rows.

    `state` is complete, or fail for a trial that a kill interrupted (its value is None). `auc` and `log_loss` are
    cross-validated, one of them is the value. `attributes` of a chosen trial hold `auc.<B>`, `auc_low.<B>`,
    `auc_high.<B>` on every B's test rows; no sampler reads them.
    """

    number: int
    state: str
    params: Mapping[str, Any]
    value: float | None
    attributes: Mapping[str, Any]
    log_loss: float | None = None
    auc: float | None = None

    @property
    def choice(self) -> Choice:
        return Choice(**self.params)


@dataclass(frozen=True)
class Sweep:
    """The trials of one (SAE, A) under a study's name; `params` say what was searched, and on which rows.

    `untuned` is the best of the grid of the section `probe`: its N, C, ranking, scaling, its cross-validated `auc` and
    `log_loss`, `auc.<B>` and so on, and a fingerprint of the test rows; empty until the sweep is done.
    """

    study: str
    space: str
    train: str
    params: Mapping[str, Any]
    trials: tuple[Trial, ...]
    untuned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.study}/{self.space}/{self.train}"

    @property
    def complete(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "complete"]

    def cost(self, trial: Trial) -> float:
        """The objective, less is better."""
        return float("inf") if trial.value is None else sign(self.params["objective"]) * trial.value

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def front(sweep: Sweep) -> list[Trial]:
    """The trials that no other beats in the objective without using more features, from few features to many."""
    best: list[Trial] = []
    for trial in sorted(sweep.complete, key=lambda trial: (trial.params["N"], sweep.cost(trial), trial.number)):
        if not best or sweep.cost(trial) < sweep.cost(best[-1]):
            best.append(trial)
    return best


def winner(sweep: Sweep, n_max: int | None = None) -> Trial:
    """The complete trial with the best objective among those of at most `n_max` features, the first of equals.

    Without `n_max` it is what Optuna calls the study's best trial.

    Raises:
        UserError: there is none.
    """
    allowed = [trial for trial in sweep.complete if n_max is None or trial.params["N"] <= n_max]
    if not allowed:
        limit = "" if n_max is None else f" with at most {n_max} features"
        raise UserError(f"sweep {sweep.study}: no complete trial of {sweep.space}/{sweep.train}{limit}; run the sweep")
    return min(allowed, key=lambda trial: (sweep.cost(trial), trial.number))


def chosen(sweep: Sweep) -> list[Trial]:
    """The trials that are worth a look at the test rows: the winner, or in mode pareto the front."""
    return front(sweep) if sweep.params["mode"] == "pareto" else [winner(sweep)]


def ties(sweep: Sweep, trial: Trial) -> int:
    """How many other trials are as good as this one."""
    return sum(abs(sweep.cost(other) - sweep.cost(trial)) < TIE for other in sweep.complete) - 1


def reached(attributes: Mapping[str, Any], train: str) -> dict[str, float]:
    """AUC on A's test rows with its interval, and the mean over the other test sets; without what is missing."""
    own = {"auc_in_domain": "auc", "auc_in_domain_low": "auc_low", "auc_in_domain_high": "auc_high"}
    found = {name: attributes[f"{key}.{train}"] for name, key in own.items() if f"{key}.{train}" in attributes}
    away = [value for key, value in attributes.items() if key.startswith("auc.") and key != f"auc.{train}"]
    return found | ({"auc_ood": fmean(away)} if away else {})


def table(sweeps: Iterable[Sweep]) -> pd.DataFrame:
    """One row for each chosen trial, with what the untuned probe had beside it; missing values are NaN."""
    rows = []
    for sweep in sweeps:
        before = {name: sweep.untuned.get(name) for name in ("N", "C", "auc", "log_loss")}
        before |= reached(sweep.untuned, sweep.train)
        for trial in chosen(sweep) if sweep.complete else ():
            about = {"sae": sweep.space, "train": sweep.train, "trial": trial.number, **trial.params}
            about |= {"cv_auc": trial.auc, "cv_log_loss": trial.log_loss}
            about |= {"trials": len(sweep.complete), "ties": ties(sweep, trial)} | reached(
                trial.attributes, sweep.train
            )
            names = {"auc": "untuned.cv_auc", "log_loss": "untuned.cv_log_loss"}
            rows.append(about | {names.get(name, f"untuned.{name}"): value for name, value in before.items()})
    untuned = [f"untuned.{name}" for name in ("N", "C", "cv_auc", "cv_log_loss", *REACHED)]
    columns = ["sae", "train", "trial", "N", "C", "ranking", "scaling", "cv_log_loss", "cv_auc", "trials", "ties"]
    return pd.DataFrame(rows, columns=[*columns, *REACHED, *untuned])


def told(sweep: Sweep, chosen: Mapping[int, Mapping[str, Any]]) -> str:
    """The note on a study's page in the dashboard, in Markdown.

    Args:
        sweep: its trials.
        chosen: by trial number, AUC on every B's test rows.
    """
    best = winner(sweep)
    lines = ["| probe | N | C | ranking | scaling | log loss | AUC | in domain | out of domain |", "|---" * 9 + "|"]
    for number, tests in chosen.items():
        trial = next(trial for trial in sweep.trials if trial.number == number)
        lines.append(
            _line(f"trial {number}", {**trial.params, "auc": trial.auc, "log_loss": trial.log_loss, **tests}, sweep)
        )
    lines.append(_line("untuned", sweep.untuned, sweep))
    equal = f"{ties(sweep, best)} of {len(sweep.complete) - 1} other trials come within {TIE} of the best one."
    about = "Log loss and AUC are cross-validated on the training rows; the last two columns are AUC on test rows."
    return "\n".join([*lines, "", equal, about])


def _line(name: str, values: Mapping[str, Any], sweep: Sweep) -> str:
    areas = reached(values, sweep.train)
    numbers = [values["log_loss"], values["auc"], areas.get("auc_in_domain"), areas.get("auc_ood")]
    shown = ["" if number is None else f"{number:.3f}" for number in numbers]
    told = [name, values["N"], f"{values['C']:g}", values["ranking"], values["scaling"], *shown]
    return f"| {' | '.join(map(str, told))} |"
