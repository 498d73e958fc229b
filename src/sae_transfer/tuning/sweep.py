"""A sweep over many (SAE, A): what one process does for its share, and how several share the work."""

import fcntl
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.names import check_name
from sae_transfer.core.space import Space
from sae_transfer.probing.evaluations import bootstrapped_auc
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.rows import Rows
from sae_transfer.tuning import objective, optuna_studies, trials
from sae_transfer.tuning.search_space import SweepParams
from sae_transfer.tuning.storage import open_storage, refusing

if TYPE_CHECKING:
    from sae_transfer.pipeline.study import Study

LOCKS = Path("studies")
PATIENCE = 10.0  # seconds that the workers of a killed sweep get to notice it
Tick = Callable[[str, float, int], object]  # a sweep's name, an objective, for how many trials it stands


@dataclass(frozen=True)
class Plan:
    """A sweep to run: on which study, under which name, and its pairs of an SAE and a training set."""

    study: "Study"
    name: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def sweep(self) -> SweepParams:
        return self.study.params.sweep


def pairs(study: "Study", saes: Sequence[str] = (), trains: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Every (SAE, A) of the study, or those of the SAEs and training sets that are named.

    Raises:
        UserError: a name that the study does not have.
    """
    known_saes = [space.sae for space in study.saes]
    for names, known in ((saes, known_saes), (trains, study.datasets)):
        for name in names:
            if name not in known:
                raise UserError(f"{name} is not in the study; {closest(name, known)}")
    return tuple((sae, train) for sae in saes or known_saes for train in trains or study.datasets)


def sweep_one(storage: Any, plan: Plan, sae: str, train: str, tick: Tick) -> None:
    """Runs what is left of the trials of one (SAE, A), then scores its chosen and untuned probes on test rows."""
    of, sweep, space = plan.study, plan.sweep, plan.study.space(sae)
    probe = of.params.probe.model_copy(update={"overrides": {}})
    rows, name = of.rows(space, train), f"{plan.name}/{sae}/{train}"
    searched = optuna_studies.search_space(sweep, probe.selection, probe.n_folds, of.seed, _fingerprint(rows))
    study = optuna_studies.start(storage, name, searched)
    before = optuna_studies.record(study)
    if before.complete:
        tick(name, trials.winner(before).value or 0.0, min(len(before.complete), sweep.trials))
    scored_on = _digest(_fingerprint(of.rows(space, test, "unseen")) for test in of.datasets)
    if len(before.complete) >= sweep.trials and _scored(before, scored_on):
        return
    folds = objective.folds(rows, of.seed, probe, sweep.ranking, sweep.n_max)
    grid = sweep.grid_points(probe, min(fold.n_features for fold in folds))
    optuna_studies.run(study, searched, folds, grid, sweep.trials, lambda value, done: tick(name, value, done))
    found = optuna_studies.record(study)
    choices = {trial.number: trial.choice for trial in trials.chosen(found)}
    choice, score = objective.untuned(folds, probe)
    fitted = [objective.trained(rows, of.seed, probe, each) for each in (*choices.values(), choice)]
    *reached, untuned = _on_test_rows(fitted, of, space)
    chosen = dict(zip(choices, reached, strict=True))
    untuned |= {**vars(choice), "auc": score.auc, "log_loss": score.log_loss, "scored_on": scored_on}
    optuna_studies.note(study, chosen, untuned, trials.told(replace(found, untuned=untuned), chosen))


def _scored(sweep: trials.Sweep, scored_on: str) -> bool:
    """Whether it was told already what its chosen trials are worth on these test rows."""
    told = {trial.number for trial in sweep.trials if trial.attributes}
    return sweep.untuned.get("scored_on") == scored_on and told == {trial.number for trial in trials.chosen(sweep)}


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _fingerprint(rows: Rows) -> str:
    X = sparse.csr_array(rows.X)
    parts = (X.indptr, X.indices, X.data, np.asarray(rows.labels), np.char.encode(rows.groups, "utf-8"))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _on_test_rows(fitted: Sequence[Probe], study: "Study", space: Space) -> list[dict[str, Any]]:
    """By probe: AUC on every B's test rows with its interval, or the reason why it has none."""
    found = [dict[str, Any]() for _ in fitted]
    for test in study.datasets:
        rows, evaluation = study.rows(space, test, "unseen"), study.evaluation(test, "unseen")
        for probe, told in zip(fitted, found, strict=True):
            own = bootstrapped_auc(probe.score(rows.X), evaluation)
            area = own.interval(evaluation.effective_groups)
            named = area.columns("auc") | {"reason": area.reason}
            told |= {f"{key}.{test}": value for key, value in named.items() if value == value and value != ""}
    return found


def sweep(plan: Plan, jobs: int, tick: Tick) -> list[trials.Sweep]:
    """Runs the plan with `jobs` processes, each with its share of the pairs; the result does not depend on `jobs`.

    Returns:
        every (SAE, A) of the study, those of earlier plans too.

    Raises:
        UserError: another process sweeps this study, or a worker stopped. Run it again to go on.
    """
    storage = plan.sweep.storage
    check_name(plan.name, "sweep")
    with _alone(plan.name) as lock:
        opened = open_storage(storage, plan.name, create=True)
        if jobs == 1 or len(plan.pairs) == 1:
            _share(opened, plan, plan.pairs, tick)
        else:
            del opened
            fcntl.flock(lock, fcntl.LOCK_SH)  # the workers hold it too: a sweep ends when the last of them does
            _share_among(plan, min(jobs, len(plan.pairs)), tick)
        return optuna_studies.records(storage, plan.name)


def _share(opened: Any, plan: Plan, mine: Sequence[tuple[str, str]], tick: Tick) -> None:
    # On matrices this small, several BLAS threads spend their time waiting for each other.
    with threadpool_limits(1), refusing(plan.sweep.storage, plan.name):
        for space, train in mine:
            sweep_one(opened, plan, space, train, tick)


@contextmanager
def _alone(study: str) -> Iterator[IO[bytes]]:
    """Holds the lock of a study, which the kernel takes back from a killed process."""
    LOCKS.mkdir(exist_ok=True)
    with (LOCKS / f"{study}.lock").open("ab") as file:
        end = time.monotonic() + PATIENCE
        while not _locked(file):
            if time.monotonic() > end:
                raise UserError(f"sweep {study}: another process sweeps it; wait for it, or choose another name")
            time.sleep(0.1)
        yield file


def _locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _share_among(plan: Plan, jobs: int, tick: Tick) -> None:
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, Any] = {}
    try:
        for i in range(jobs):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(plan, plan.pairs[i::jobs], theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()  # so that the pipe ends with the worker
            workers[ours] = process
        _listen(workers, plan.name, tick)
    finally:
        for process in workers.values():
            process.terminate()
            process.join()


def _listen(workers: Mapping[Connection, Any], study: str, tick: Tick) -> None:
    open_: dict[Any, Any] = dict(workers)
    while open_:
        for ready in wait(list(open_)):
            pipe: Any = ready
            try:
                message = pipe.recv()
            except EOFError:
                process = open_.pop(pipe)
                process.join()
                if process.exitcode:
                    raise UserError(
                        f"sweep {study}: a worker stopped (exit code {process.exitcode}); run it again to go on"
                    ) from None
                continue
            if isinstance(message, str):
                raise UserError(message)
            tick(*message)


def _work(plan: Plan, mine: Sequence[tuple[str, str]], pipe: Connection, parent: int) -> None:
    """A worker. Its next word to a parent that was killed fails, and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with (LOCKS / f"{plan.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.getppid() != parent:
            return
        try:
            opened = open_storage(plan.sweep.storage, plan.name, create=True)
            _share(opened, plan, mine, lambda *news: _say(pipe, news))
        except UserError as error:
            _say(pipe, str(error))


def _say(pipe: Connection, message: object) -> None:
    try:
        pipe.send(message)
    except BrokenPipeError:  # nobody listens any more
        sys.exit(0)
