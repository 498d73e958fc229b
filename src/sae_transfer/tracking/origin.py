"""Where numbers come from: what dvc.lock and git say of them."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sae_transfer.core.errors import UserError
from sae_transfer.tracking.contents import digest

UNKNOWN = "not in dvc.lock"


class Lock:
    """dvc.lock: the md5 of every file that a stage read or wrote, and which stage wrote it."""

    def __init__(self, stages: Mapping[str, Any]) -> None:
        self.stages = stages
        listed = [item for stage in stages.values() for kind in ("deps", "outs") for item in stage.get(kind, [])]
        self.md5s: dict[str, str] = {item["path"]: item["md5"] for item in listed if "md5" in item}
        self.makers = {item["path"]: name for name, stage in stages.items() for item in stage.get("outs", [])}

    def md5(self, path: str | Path) -> str:
        return self.md5s.get(Path(path).as_posix(), UNKNOWN)

    def maker(self, path: str | Path) -> dict[str, str]:
        """Tags of the stage that wrote the file: its name, and the md5 of its entry (command, deps, params, outs)."""
        name = self.makers.get(Path(path).as_posix())
        return {} if name is None else {"dvc_stage": name, "dvc_stage_md5": digest(self.stages[name])}


def read_lock(path: Path = Path("dvc.lock")) -> Lock:
    """An empty one where there is no dvc.lock yet.

    Raises:
        UserError: it is damaged.
    """
    try:
        lock = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return Lock(lock["stages"])
    except FileNotFoundError:
        return Lock({})
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise UserError(f"{path}: damaged; restore it with git, or delete it and run `dvc repro`") from None


def git_tags() -> dict[str, str]:
    """The commit, and whether any file but dvc.lock (which the run itself writes) differs from it."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    return {"mlflow.source.git.commit": commit, "git_commit": commit, "git_dirty": "yes" if changed else "no"}


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
