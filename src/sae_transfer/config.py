"""Reading params.yaml: frozen and strict, with a message that helps whoever mistyped a key."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sae_transfer.records import UserError, closest

PARAMS_FILE = Path("params.yaml")


class Params(BaseModel):
    """Base of every parameter class; each lives beside the code that uses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


P = TypeVar("P", bound=Params)


def read(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The whole params file as plain dicts and lists.

    Raises:
        UserError: the file is missing, is not YAML (with its line), or is no mapping.
    """
    try:
        params = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run this from the project's root, where params.yaml lies") from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place else ""
        raise UserError(f"{path}{line}: not valid YAML; correct it or restore it from presets/") from None
    if not isinstance(params, dict):
        raise UserError(f"{path}: expected sections (name: value), found {type(params).__name__}")
    return params


def section(params: Mapping[str, Any], kind: type[P], *path: str) -> P:
    """The section at `path` of the params, as the frozen class `kind`.

    Raises:
        UserError: the section or a key is missing or unknown (with the closest names), or a value has a wrong type.
    """
    value: Any = params
    for depth, name in enumerate(path):
        if not isinstance(value, Mapping) or name not in value:
            known = value if isinstance(value, Mapping) else ()
            where = ".".join(path[:depth]) or "its top level"
            raise UserError(f"params.yaml: no '{name}' under {where}; {closest(name, known)}")
        value = value[name]
    return parse(kind, value, ".".join(path))


def parse(kind: type[P], value: Any, where: str) -> P:
    """`value` as the frozen class `kind`; `where` is the section's name for the message."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UserError(f"params.yaml: {_first_problem(kind, error, where)}") from None


def _first_problem(kind: type[Params], error: ValidationError, where: str) -> str:
    problem = error.errors()[0]
    place = ".".join([where, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {place}; {closest(str(problem['loc'][-1]), kind.model_fields)}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    return f"{place} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"
