"""Optuna studies: opened, continued and read back. The only home of optuna, which is imported inside functions."""

import fcntl
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_transfer.records import UserError, closest, stable_hash
from sae_transfer.tuning.objective import Choice, Fold, SweepParams, cross_validated
from sae_transfer.tuning.results import Sweep, Trial

if TYPE_CHECKING:
    import optuna

SPACE, CHOSEN = "search_space", "chosen"  # a study's user attributes
GRID, LOG_LOSS = "grid", "cv_log_loss"  # a trial's: it is a point of the grid; its log loss
CHOICE = frozenset(("C", "N", "ranking", "scaling"))
MAKES = {0: "study_id", 4: "trial_id"}  # what an operation of Optuna's journal makes, numbered from 0


def check_name(study: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", study):
        raise UserError(f"study '{study}': a name is letters, digits, '.', '_' and '-'")


def journal(folder: str, study: str) -> Path:
    """Where a study's journal lies: one file, in which every (SAE, A) has an Optuna study of its own."""
    return Path(folder) / f"{study}.journal"


def is_url(storage: str) -> bool:
    return "://" in storage


def open_storage(storage: str, study: str, *, create: bool) -> "optuna.storages.BaseStorage":
    """The storage that holds a study: its journal in the folder `storage`, or whatever lies at that URL.

    Raises:
        UserError: there is no such study (and `create` is not asked), its journal is corrupt (it stays as it is), or
            the storage does not answer.
    """
    import optuna

    check_name(study)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = journal(storage, study)
    if not is_url(storage):
        if not create and not path.exists():
            raise _unknown(study, storage, (found.stem for found in Path(storage).glob("*.journal")))
        _check_journal(path)
    try:
        return _opened(storage, path)
    except ImportError as error:
        raise UserError(f"sweep.storage = {storage}: {error}; install what it names") from None
    except Exception as error:  # whatever a database driver or a replayed journal raises
        raise _refused(storage if is_url(storage) else str(path), error) from None


def _opened(storage: str, path: Path) -> "optuna.storages.BaseStorage":
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalRedisBackend, JournalStorage

    if storage.startswith("redis"):
        return JournalStorage(JournalRedisBackend(storage))
    if is_url(storage):
        return optuna.storages.get_storage(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_kernel_lock(path)))


def _kernel_lock(path: Path) -> Any:
    """A lock that the kernel takes back from a killed process; Optuna's own make the next one wait for 30 s."""
    from optuna.storages.journal._file import BaseJournalFileLock

    class KernelLock(BaseJournalFileLock):
        def acquire(self) -> bool:
            self.file = path.open("ab")
            fcntl.flock(self.file, fcntl.LOCK_EX)
            return True

        def release(self) -> None:
            self.file.close()

    return KernelLock()


def _check_journal(path: Path) -> None:
    """Refuses a journal with a line that is not whole, or that is about a study or trial which no line made.

    Optuna passes over both without a word, and writes behind them.
    """
    made = {"study_id": 0, "trial_id": 0}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not _fits(line, made):
                    raise UserError(
                        f"{path} line {number}: corrupt; it was left as it is: restore it from a copy, "
                        "or move it away, or choose another STUDY"
                    )
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(str(path), error) from None


def _fits(line: bytes, made: dict[str, int]) -> bool:
    """Whether a journal's line is whole and about what the lines before it made, which it then adds to."""
    try:
        record = json.loads(line)
        operation = record["op_code"]
        known = all(record.get(name, -1) < count for name, count in made.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    if operation in MAKES:
        made[MAKES[operation]] += 1
    return known and line.endswith(b"\n")


def _refused(place: str, error: Exception) -> UserError:
    cause = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return UserError(f"{place}: Optuna cannot use it ({cause}); correct sweep.storage, or choose another STUDY")


def _unknown(study: str, storage: str, known: Iterator[str]) -> UserError:
    return UserError(f"study {study}: not in {storage}; {closest(study, known)} `make sweep STUDY={study}` starts it")


@contextmanager
def refusing(storage: str, study: str) -> Iterator[None]:
    """What a storage raises inside the block, as one line: nothing that was written before is lost."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OSError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        place = storage if is_url(storage) else str(journal(storage, study))
        raise _refused(place, error) from None


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
        "C": list(params.C),
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
            raise _unknown(study, storage, iter({name.split("/")[0] for name in names}))
        return [record(optuna.load_study(study_name=name, storage=opened)) for name in mine]


def serve(storage: str, study: str, port: int) -> None:
    """optuna-dashboard on 127.0.0.1 until it is interrupted.

    Raises:
        UserError: there is no such study, or the port is in use.
    """
    from wsgiref.simple_server import make_server

    from optuna_dashboard import wsgi

    records(storage, study)
    app = wsgi(open_storage(storage, study, create=False))
    try:
        server = make_server("127.0.0.1", port, app)
    except OSError as error:
        raise UserError(f"port {port}: {error.strerror}; choose another PORT") from None
    print(f"http://127.0.0.1:{server.server_port}/ shows the studies; Ctrl-C ends it", flush=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
