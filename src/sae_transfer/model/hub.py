"""The Hugging Face hub: which commit a name stands for, and what to do where it refuses."""

from collections.abc import Iterator
from pathlib import Path

from sae_transfer.core.errors import UserError

OUT_OF_REACH = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout"}


def resolve(repo: str, revision: str = "main") -> str:
    """The commit (40 hex digits) that a branch, a tag or a commit of a hub repository stands for now.

    Raises:
        UserError: gated, unknown, out of reach, or a token that the hub does not accept.
    """
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(repo, revision=revision, timeout=20).sha
    except Exception as error:  # of several HTTP libraries, which share no base
        out = any(type(cause).__name__ in OUT_OF_REACH for cause in _causes(error))
        advice = "the hub cannot be reached to ask for its commit" if out else remedy(repo, revision, error)
        raise UserError(f"{repo}: {advice or _first_line(error)}") from error
    if commit is None:
        raise UserError(f"{repo}: the hub names no commit for {revision}; try again later")
    return str(commit)


def commit_of(path: str | Path) -> str:
    """The commit of a file in the hub's cache, which keeps each commit in a folder of that name."""
    parts = Path(path).parts
    return parts[len(parts) - parts[::-1].index("snapshots")]


def remedy(repo: str, revision: str | None, error: BaseException) -> str | None:
    """What a person can do about an error of the hub, in one line; None if the error is not of the hub."""
    chain = list(_causes(error))
    kinds = {type(cause).__name__ for cause in chain}
    statuses = {getattr(getattr(cause, "response", None), "status_code", None) for cause in chain}
    page = f"https://huggingface.co/{repo}"
    if "GatedRepoError" in kinds:
        return f"gated; accept its licence at {page}, then set HF_TOKEN to a token of that account"
    if "RevisionNotFoundError" in kinds:
        return f"no revision {revision}; see {page}/commits/main"
    if kinds & {"RepositoryNotFoundError", "HFValidationError"} or (401 in statuses and not _has_token()):
        return "no such repository on the hub; correct the name, or set HF_TOKEN if it is private or gated"
    if 401 in statuses:
        return "the hub does not accept the token; set HF_TOKEN to a valid one, or unset it where none is needed"
    if 403 in statuses:
        return "this token may not read it; allow it gated repositories at https://huggingface.co/settings/tokens"
    if 429 in statuses:
        return "the hub refuses so many requests; try again later, or set HF_TOKEN"
    if "RemoteEntryNotFoundError" in kinds:
        return f"a file is missing from the repository; see {page}/tree/{revision or 'main'}"
    if kinds & OUT_OF_REACH:
        return (
            f"the hub cannot be reached and its cache lacks {repo}; where there is a network run "
            f"`hf download {repo}`, and copy its folder in $HF_HOME/hub here"
        )
    return None


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
