"""Optuna studies: begun, continued and read back. With `storage` the only home of optuna, imported in functions."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError
from sae_transfer.core.randomness import stable_hash
from sae_transfer.probing.probe_params import SelectionRule
from sae_transfer.tuning.objective import NAMES, Fold, cross_validated, sign
from sae_transfer.tuning.search_space import Choice, SweepParams
from sae_transfer.tuning.storage import open_storage, refusing, unknown
from sae_transfer.tuning.trials import Sweep, Trial

if TYPE_CHECKING:
    import optuna

SPACE, CHOSEN, UNTUNED = "search_space", "chosen", "untuned"  # a study's user attributes
AREA, LOG_LOSS = "cv_auc", "cv_log_loss"  # a trial's
CHOICE = frozenset(("C", "N", "ranking", "scaling"))
DIGITS = 3  # of a sampled C


def search_space(params: SweepParams, objective: SelectionRule, n_folds: int, seed: int, rows: str) -> dict[str, Any]:
    """What makes the values of two trials comparable: kept with the study, and compared when it goes on.

    Args:
        params: the section `sweep`.
        objective: what trials are judged by.
        n_folds: of the cross-validation.
        seed: of the folds and the sampler.
        rows: a fingerprint of A's training rows in the space.
    """
    return {
        "objective": objective,
        "mode": params.mode,
        "n_max": params.n_max,
        "C": list(params.C_range),
        "ranking": list(params.ranking),
        "scaling": list(params.scaling),
        "n_folds": n_folds,
        "seed": seed,
        "rows": rows,
    }


def start(storage: "optuna.storages.BaseStorage", name: str, space: Mapping[str, Any]) -> "optuna.Study":
    """The Optuna study of that name, new or to go on with; trials that a killed process left running have failed.

    Call it only where no other process works on the study.

    Raises:
        UserError: it was made with another search space, or on other rows, or it lost a part of a trial.
    """
    import optuna
    from optuna.trial import TrialState

    if name not in optuna.get_all_study_names(storage):
        study = _new(storage, name, space)
        study.set_user_attr(SPACE, dict(space))
        return study
    study = optuna.load_study(study_name=name, storage=storage)
    if not study.user_attrs and not study.trials:  # killed between the two lines above
        study.set_user_attr(SPACE, dict(space))
    _check_space(name, record(study).params, space)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _new(storage: "optuna.storages.BaseStorage", name: str, space: Mapping[str, Any]) -> "optuna.Study":
    import optuna

    of: SelectionRule = space["objective"]
    goals: dict[str, Any] = {NAMES[of]: "minimize" if sign(of) > 0 else "maximize"}
    if space["mode"] == "pareto":
        goals["number of features"] = "minimize"
    study = optuna.create_study(study_name=name, storage=storage, directions=list(goals.values()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(goals))  # what the dashboard calls its axes
    return study


def _check_space(name: str, made: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in sorted({*made, *wanted}):
        if made.get(key) != wanted.get(key):
            raise UserError(
                f"sweep {name}: made with another search space ({key} = {made.get(key)} there, {wanted.get(key)} now); "
                "choose another name, or restore what made it"
            )


def complete(study: "optuna.Study") -> int:
    """How many trials are complete."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def run(
    study: "optuna.Study",
    space: Mapping[str, Any],
    folds: Sequence[Fold],
    grid: Sequence[Choice],
    n_trials: int,
    tick: Callable[[float, int], object],
) -> None:
    """Asks for one trial at a time until `n_trials` are complete.

    `tick` gets the objective of each trial, and 1.

    The sampler is seeded anew for each trial by how many are complete, so a study that was interrupted goes on as if
    it had not been; its name plays no part. Points of the grid come first, each once.
    """
    n_max, place = min(space["n_max"], *(fold.n_features for fold in folds)), study.study_name.split("/", 1)[1]
    while (done := complete(study)) < n_trials:
        study.sampler = _sampler(stable_hash(space["seed"], "sweep", place, done) % 2**32)
        _enqueue(study, grid)
        trial = study.ask()
        choice = _suggested(trial, space, n_max)
        score = cross_validated(folds, choice)
        value = score.of(space["objective"])
        trial.set_user_attr(AREA, score.auc)
        trial.set_user_attr(LOG_LOSS, score.log_loss)
        study.tell(trial, [value, choice.N] if space["mode"] == "pareto" else value)
        tick(value, 1)


def _sampler(seed: int) -> "optuna.samplers.BaseSampler":
    """TPE whose C has three digits, so that the C that a study shows is the C that was tried."""
    import optuna

    class RoundedTPE(optuna.samplers.TPESampler):
        def sample_relative(self, *args: Any) -> dict[str, Any]:
            return {name: _rounded(name, value) for name, value in super().sample_relative(*args).items()}

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return _rounded(name, super().sample_independent(study, trial, name, distribution))

    return RoundedTPE(seed=seed)


def _rounded(name: str, value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if name == "C" else value


def _enqueue(study: "optuna.Study", grid: Sequence[Choice]) -> None:
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.WAITING))
    tried = [trial.params or trial.system_attrs.get("fixed_params") for trial in trials]
    point = next((vars(choice) for choice in grid if vars(choice) not in tried), None)
    if point is not None:
        study.enqueue_trial(point)


def _suggested(trial: "optuna.Trial", space: Mapping[str, Any], n_max: int) -> Choice:
    trial.suggest_float("C", *space["C"], log=True)
    trial.suggest_int("N", 1, n_max, log=True)
    trial.suggest_categorical("ranking", space["ranking"])
    trial.suggest_categorical("scaling", space["scaling"])
    return Choice(**trial.params)


def note(study: "optuna.Study", chosen: Mapping[int, Mapping[str, Any]], untuned: Mapping[str, Any], body: str) -> None:
    """Keeps what the chosen trials and the untuned probe are worth on test rows, and the note that the dashboard shows.

    Optuna closes a trial's own attributes when it ends, so these are attributes of the study; no sampler reads them.
    """
    from optuna_dashboard import save_note

    wanted = {CHOSEN: {str(number): dict(values) for number, values in chosen.items()}, UNTUNED: dict(untuned)}
    for name, value in wanted.items():
        if study.user_attrs.get(name) != value:
            study.set_user_attr(name, value)
            save_note(study, body)


def record(study: "optuna.Study") -> Sweep:
    """A study named `<study>/<space>/<A>` as plain frozen records."""
    name, space, train = study.study_name.rsplit("/", 2)
    attributes = study.user_attrs
    chosen = attributes.get(CHOSEN, {})
    trials = tuple(_trial(study.study_name, trial, chosen.get(str(trial.number))) for trial in study.trials)
    return Sweep(name, space, train, attributes.get(SPACE, {}), trials, attributes.get(UNTUNED, {}))


def _trial(study: str, trial: "optuna.trial.FrozenTrial", tests: Mapping[str, Any] | None) -> Trial:
    state, value, known = trial.state.name.lower(), trial.values[0] if trial.values else None, trial.user_attrs
    if state == "complete" and not trial.params.keys() >= CHOICE:  # a kill may have come between
        lost = ", ".join(sorted(CHOICE - trial.params.keys()))
        raise UserError(
            f"sweep {study}: trial {trial.number} lost its {lost}; restore its journal, or choose another name"
        )
    attributes = {} if tests is None else {"chosen": True, **tests}
    return Trial(trial.number, state, trial.params, value, attributes, known.get(LOG_LOSS), known.get(AREA))


def records(storage: str, study: str) -> list[Sweep]:
    """Every (SAE, A) of a study, in the order of their names.

    Raises:
        UserError: there is no such study, its journal is corrupt, or the storage does not answer.
    """
    import optuna

    opened = open_storage(storage, study, create=False)
    with refusing(storage, study):
        names = sorted(optuna.get_all_study_names(opened))
        mine = [name for name in names if name.startswith(f"{study}/") and name.count("/") == 2]
        if not mine:
            raise unknown(study, storage, iter({name.split("/")[0] for name in names}))
        return [record(optuna.load_study(study_name=name, storage=opened)) for name in mine]


def serve(storage: str, study: str, port: int) -> None:
    """optuna-dashboard on 127.0.0.1 until it is interrupted.

    Raises:
        UserError: there is no such study, or the port is in use.
    """
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from optuna_dashboard import wsgi

    class Server(ThreadingMixIn, WSGIServer):  # browsers open idle connections, which would block a single thread
        daemon_threads = True

    class Handler(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """No line for each request."""

    records(storage, study)
    app = wsgi(open_storage(storage, study, create=False))
    try:
        server = make_server("127.0.0.1", port, app, Server, Handler)
    except OSError as error:
        raise UserError(f"port {port}: {error.strerror}; choose another PORT") from None
    print(f"http://127.0.0.1:{server.server_port}/ shows the studies; Ctrl-C ends it", flush=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
