"""A sweep over many (SAE, A): what one process does for its share, and how several share the work."""

import fcntl
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from sae_transfer import config, metrics, transfer
from sae_transfer.probes import Probe, ProbeParams, Training
from sae_transfer.records import UserError, closest
from sae_transfer.stages import inputs
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.transfer import TransferParams
from sae_transfer.tuning import objective, results, studies
from sae_transfer.tuning.objective import Choice, SweepParams
from sae_transfer.tuning.storage import check_name, open_storage, refusing

LOCKS = Path("studies")
PATIENCE = 10.0  # seconds that the workers of a killed sweep get to notice it
Tick = Callable[[str, float, int], object]  # a sweep's name, an AUC, for how many trials it stands


@dataclass(frozen=True)
class Plan:
    """A sweep to run: the whole params, the study's name, and its pairs of an SAE and a training set."""

    params: Mapping[str, Any]
    study: str
    pairs: tuple[tuple[str, str], ...]

    @property
    def sweep(self) -> SweepParams:
        return config.section(self.params, SweepParams, "sweep")


def pairs(
    params: Mapping[str, Any], saes: Sequence[str] = (), trains: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Every (SAE, A) of the params' study, or those of the SAEs and training sets that are named.

    Raises:
        UserError: a name that the study does not have.
    """
    study = config.section(params, StudyParams, "study")
    for names, known in ((saes, study.saes), (trains, study.datasets)):
        for name in names:
            if name not in known:
                raise UserError(f"{name} is not in the study; {closest(name, known)}")
    return tuple((sae, train) for sae in saes or study.saes for train in trains or study.datasets)


def check_sweep(params: Mapping[str, Any]) -> None:
    """The section `sweep` beside the section `probe`, whose grid it may try first.

    Raises:
        UserError: a point of the grid lies outside the search space, or it has more points than there are trials.
    """
    sweep, probe = config.section(params, SweepParams, "sweep"), config.section(params, ProbeParams, "probe")
    if not sweep.grid:
        return
    for C in probe.C:
        if not sweep.C[0] <= C <= sweep.C[1]:
            raise UserError(f"params.yaml: sweep.C = {list(sweep.C)} leaves out {C:g} of the grid probe.C; widen it")
    for name in ("ranking", "scaling"):
        if getattr(probe, name) not in getattr(sweep, name):
            raise UserError(f"params.yaml: sweep.{name} lacks the grid's {getattr(probe, name)}; add it")
    points = len(_grid(sweep, probe, sweep.n_max))
    if points > sweep.trials:
        raise UserError(f"params.yaml: sweep.trials = {sweep.trials}, but the grid has {points} points; raise it")


def _grid(sweep: SweepParams, probe: ProbeParams, n_max: int) -> list[Choice]:
    sizes = sorted(n for n in probe.N if n <= n_max) if sweep.grid else []
    return [Choice(C, n, probe.ranking, probe.scaling) for n in sizes for C in sorted(probe.C)]


def sweep_one(storage: Any, plan: Plan, space: str, train: str, tick: Tick) -> None:
    """Runs what is left of the trials of one (SAE, A), then tells what the chosen ones are worth on test rows."""
    sweep, seed = plan.sweep, int(plan.params["seed"])
    probe = config.section(plan.params, ProbeParams, "probe").model_copy(update={"overrides": {}})
    rows = Training(*inputs.split_rows(space, train, "train"))
    folds = objective.folds(rows, seed, probe, sweep.ranking, sweep.n_max)
    n_features = min(fold.n_features for fold in folds)
    searched = studies.search_space(sweep, n_features, probe.n_folds, seed, _fingerprint(rows))
    name = f"{plan.study}/{space}/{train}"
    study = studies.start(storage, name, searched)
    grid = _grid(sweep, probe, searched["n_max"])
    studies.run(study, searched, folds, grid, sweep.trials, lambda area, done: tick(name, area, done))
    found = studies.record(study)
    fitted = {trial.number: objective.trained(rows, seed, probe, trial.choice) for trial in results.chosen(found)}
    studies.note_chosen(study, _on_test_rows(fitted, space, plan.params))


def _fingerprint(rows: Training) -> str:
    X = sparse.csr_array(rows.X)
    parts = (X.indptr, X.indices, X.data, np.asarray(rows.labels), np.char.encode(rows.groups, "utf-8"))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def _on_test_rows(fitted: Mapping[int, Probe], space: str, params: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """By probe: AUC on every B's test rows with its interval, or the reason why it has none."""
    chosen, found = config.section(params, TransferParams, "transfer"), {number: dict[str, Any]() for number in fitted}
    for test in config.section(params, StudyParams, "study").datasets:
        X, labels, groups = inputs.split_rows(space, test, "test")
        rows = transfer.test_set(labels, groups, test, int(params["seed"]), chosen)
        for number, probe in fitted.items():
            own = transfer.reference(probe.score(X), rows)
            area = metrics.interval(own.auc, own.resampled, rows.n_groups)
            named = {"auc": area.value, "auc_low": area.low, "auc_high": area.high, "reason": area.reason}
            found[number] |= {f"{key}.{test}": value for key, value in named.items() if value == value and value != ""}
    return found


def sweep(plan: Plan, jobs: int, tick: Tick) -> list[results.Sweep]:
    """Runs the plan with `jobs` processes, each with its share of the pairs; the result does not depend on `jobs`.

    Returns:
        every (SAE, A) of the study, those of earlier plans too.

    Raises:
        UserError: another process sweeps this study, or a worker stopped. Run it again to go on.
    """
    storage = plan.sweep.storage
    check_name(plan.study)
    with _alone(plan.study) as lock:
        opened = open_storage(storage, plan.study, create=True)
        if jobs == 1 or len(plan.pairs) == 1:
            _share(opened, plan, plan.pairs, tick)
        else:
            del opened
            fcntl.flock(lock, fcntl.LOCK_SH)  # the workers hold it too: a sweep ends when the last of them does
            _share_among(plan, min(jobs, len(plan.pairs)), tick)
        return studies.records(storage, plan.study)


def _share(opened: Any, plan: Plan, mine: Sequence[tuple[str, str]], tick: Tick) -> None:
    # On matrices this small, several BLAS threads spend their time waiting for each other.
    with threadpool_limits(1), refusing(plan.sweep.storage, plan.study):
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
                raise UserError(f"study {study}: another process sweeps it; wait for it, or choose another STUDY")
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
        _listen(workers, plan.study, tick)
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
                        f"study {study}: a worker stopped (exit code {process.exitcode}); run it again to go on"
                    ) from None
                continue
            if isinstance(message, str):
                raise UserError(message)
            tick(*message)


def _work(plan: Plan, mine: Sequence[tuple[str, str]], pipe: Connection, parent: int) -> None:
    """A worker. Its next word to a parent that was killed fails, and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with (LOCKS / f"{plan.study}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        if os.getppid() != parent:
            return
        try:
            opened = open_storage(plan.sweep.storage, plan.study, create=True)
            _share(opened, plan, mine, lambda *news: _say(pipe, news))
        except UserError as error:
            _say(pipe, str(error))


def _say(pipe: Connection, message: object) -> None:
    try:
        pipe.send(message)
    except BrokenPipeError:  # nobody listens any more
        sys.exit(0)
