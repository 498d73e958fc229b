"""Where DVC comes in by its Python API; `dvc repro` itself is what a person types. The only home of dvc."""

from pathlib import Path

from sae_transfer.records import UserError

SHIPPED = "demo"  # the remote inside the repository: for what data.dvc and models.dvc name, nothing else


def track(path: Path) -> Path:
    """Puts a file or folder under DVC, in a .dvc file of its own beside it that names no remote.

    Raises:
        UserError: not inside a DVC project, or DVC refuses (its reason).
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            repo.scm_context.quiet = True  # the caller says what to commit
            repo.add([str(path)])
    except DvcException as error:
        raise UserError(f"{path}: DVC cannot track it ({str(error).strip().splitlines()[0]})") from None
    return path.with_name(f"{path.name}.dvc")


def default_remote() -> tuple[str, str] | None:
    """(name, address) of the remote that `dvc push` uses, None where none is set.

    Raises:
        UserError: not inside a DVC project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            name = repo.config["core"].get("remote")
            return (name, str(repo.config["remote"].get(name, {}).get("url", "?"))) if name else None
    except DvcException as error:
        raise UserError(f"DVC: {str(error).strip().splitlines()[0]}; run this from the project's root") from None
