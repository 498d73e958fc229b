"""Optuna studies: begun, continued and read back. With `storage` the only home of optuna, imported in functions."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError
from sae_transfer.core.randomness import stable_hash
from sae_transfer.tuning.objective import Fold, cross_validated
from sae_transfer.tuning.search_space import Choice, SweepParams
from sae_transfer.tuning.storage import open_storage, refusing, unknown
from sae_transfer.tuning.trials import Sweep, Trial

if TYPE_CHECKING:
    import optuna

SPACE, CHOSEN = "search_space", "chosen"  # a study's user attributes
GRID, LOG_LOSS = "grid", "cv_log_loss"  # a trial's: it is a point of the grid; its log loss
CHOICE = frozenset(("C", "N", "ranking", "scaling"))


def search_space(params: SweepParams, n_features: int, n_folds: int, seed: int, rows: str) -> dict[str, Any]:
    """What makes the values of two trials comparable: kept with the study, and compared when it goes on.

    Args:
        params: the section `sweep`.
        n_features: how many features every fold offers.
        n_folds: of the cross-validation.
        seed: of the folds and the sampler.
        rows: a fingerprint of A's training rows in the space.
    """
    return {
        "mode": params.mode,
        "n_max": min(params.n_max, n_features),
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

    directions: list[Any] = ["maximize", "minimize"] if space["mode"] == "pareto" else ["maximize"]
    if name not in optuna.get_all_study_names(storage):
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        study.set_user_attr(SPACE, dict(space))
        return study
    study = optuna.load_study(study_name=name, storage=storage)
    if not study.user_attrs and not study.trials:  # killed between the two lines above
        study.set_user_attr(SPACE, dict(space))
    _check_space(name, record(study).params, space)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _check_space(name: str, made: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in sorted({*made, *wanted}):
        if made.get(key) != wanted.get(key):
            raise UserError(
                f"study {name}: made with another search space ({key} = {made.get(key)} there, {wanted.get(key)} now); "
                "choose another STUDY, or restore what made it"
            )


def run(
    study: "optuna.Study",
    space: Mapping[str, Any],
    folds: Sequence[Fold],
    grid: Sequence[Choice],
    n_trials: int,
    tick: Callable[[float, int], object],
) -> None:
    """Asks for one trial at a time until `n_trials` are complete.

    `tick` gets the best AUC of the trials that were complete before and their number, then that of each, and 1.

    The sampler is seeded anew for each trial by how many are complete, so a study that was interrupted goes on as if
    it had not been. Points of the grid come first, each once.
    """
    import optuna
    from optuna.trial import TrialState

    before = [trial.values[0] for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
    if before:
        tick(max(before), min(len(before), n_trials))
    while len(done := study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < n_trials:
        seed = stable_hash(space["seed"], "sweep", study.study_name, len(done)) % 2**32
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        _enqueue(study, grid)
        trial = study.ask()
        choice = _suggested(trial, space)
        score = cross_validated(folds, choice)
        trial.set_user_attr(LOG_LOSS, score.log_loss)
        study.tell(trial, [score.auc, choice.N] if space["mode"] == "pareto" else score.auc)
        tick(score.auc, 1)


def _enqueue(study: "optuna.Study", grid: Sequence[Choice]) -> None:
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.WAITING))
    tried = [trial.params or trial.system_attrs.get("fixed_params") for trial in trials]
    point = next((vars(choice) for choice in grid if vars(choice) not in tried), None)
    if point is not None:
        study.enqueue_trial(point, user_attrs={GRID: True})


def _suggested(trial: "optuna.Trial", space: Mapping[str, Any]) -> Choice:
    trial.suggest_float("C", *space["C"], log=True)
    trial.suggest_int("N", 1, space["n_max"], log=True)
    trial.suggest_categorical("ranking", space["ranking"])
    trial.suggest_categorical("scaling", space["scaling"])
    return _choice(trial)


def _choice(trial: "optuna.Trial | optuna.trial.FrozenTrial") -> Choice:
    """What a trial tries. Of a sampled C three digits are enough, so `--apply` writes exactly what was scored."""
    params = trial.params
    C = params["C"] if trial.user_attrs.get(GRID) else float(f"{params['C']:.3g}")
    return Choice(C, params["N"], params["ranking"], params["scaling"])


def note_chosen(study: "optuna.Study", attributes: Mapping[int, Mapping[str, float]]) -> None:
    """Keeps what the chosen trials are worth on test rows, by trial number.

    Optuna closes a trial's own attributes when it ends, so these are attributes of the study; no sampler reads them.
    """
    wanted = {str(number): dict(values) for number, values in attributes.items()}
    if study.user_attrs.get(CHOSEN) != wanted:
        study.set_user_attr(CHOSEN, wanted)


def record(study: "optuna.Study") -> Sweep:
    """A study named `<study>/<space>/<A>` as plain frozen records."""
    name, space, train = study.study_name.rsplit("/", 2)
    chosen = study.user_attrs.get(CHOSEN, {})
    return Sweep(
        name,
        space,
        train,
        study.user_attrs.get(SPACE, {}),
        tuple(_trial(study.study_name, trial, chosen.get(str(trial.number))) for trial in study.trials),
    )


def _trial(study: str, trial: "optuna.trial.FrozenTrial", tests: Mapping[str, Any] | None) -> Trial:
    whole = trial.params.keys() >= CHOICE  # a kill may have come between
    state, value = trial.state.name.lower(), trial.values[0] if trial.values else None
    if state == "complete" and not whole:
        lost = ", ".join(sorted(CHOICE - trial.params.keys()))
        raise UserError(
            f"study {study}: trial {trial.number} lost its {lost}; restore its journal, or choose another STUDY"
        )
    params = vars(_choice(trial)) if whole else trial.params
    attributes = {} if tests is None else {"chosen": True, **tests}
    return Trial(trial.number, state, params, value, attributes, trial.user_attrs.get(LOG_LOSS))


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
