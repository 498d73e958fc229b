"""Where Optuna studies are kept: a journal in a folder, or any storage that Optuna opens by its URL."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_transfer.core.errors import UserError, closest
from sae_transfer.core.names import check_name

if TYPE_CHECKING:
    import optuna

MAKES = {0: "study_id", 4: "trial_id"}  # what an operation of Optuna's journal makes, numbered from 0


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

    check_name(study, "sweep")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = journal(storage, study)
    if not is_url(storage):
        if not create and not path.exists():
            raise unknown(study, storage, (found.stem for found in Path(storage).glob("*.journal")))
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
    from optuna.storages.journal import JournalFileOpenLock

    class KernelLock(JournalFileOpenLock):
        def acquire(self) -> bool:
            self.file = path.open("ab")
            fcntl.flock(self.file, fcntl.LOCK_EX)
            return True

        def release(self) -> None:
            self.file.close()

    return KernelLock(str(path))


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
                        "or move it away, or choose another name"
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
    return UserError(f"{place}: Optuna cannot use it ({cause}); correct sweep.storage, or choose another name")


def unknown(study: str, storage: str, known: Iterator[str]) -> UserError:
    """What to say of a study that the storage does not hold."""
    return UserError(f"sweep {study}: not in {storage} ({closest(study, known)}); `make sweep SWEEP={study}` starts it")


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
