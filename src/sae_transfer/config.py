"""Reading params.yaml: frozen and strict, with a message that helps whoever mistyped a key."""

from collections.abc import Iterable, Mapping, Sequence
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


class Section(dict[str, Any]):
    """A mapping of the params file that says which of its names was meant when one is not there."""

    def __init__(self, values: Mapping[str, Any], place: str = "") -> None:
        super().__init__(
            {
                name: Section(value, f"{place}.{name}".lstrip(".")) if isinstance(value, Mapping) else value
                for name, value in values.items()
            }
        )
        self.place = place

    def __missing__(self, name: str) -> Any:
        raise _no(name, self.place, self)


def read(path: Path = PARAMS_FILE) -> Section:
    """The whole params file: sections, lists and plain values. A name that it lacks is a `UserError` where it is read.

    Raises:
        UserError: the file is missing, is not YAML (with its line), or is no mapping.
    """
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run this from the project's root, where params.yaml lies") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place else ""
        raise UserError(f"{path}{line}: not valid YAML; correct it, or restore it with git") from None
    if not isinstance(params, dict):
        raise UserError(f"{path}: expected sections (name: value), found {type(params).__name__}")
    return Section(params)


def section(params: Mapping[str, Any], kind: type[P], *path: str) -> P:
    """The section at `path` of the params, as the frozen class `kind`.

    Raises:
        UserError: the section or a key is missing or unknown (with the closest names), or a value has a wrong type.
    """
    value: Any = params
    for depth, name in enumerate(path):
        if not isinstance(value, Mapping) or name not in value:
            raise _no(name, ".".join(path[:depth]), value if isinstance(value, Mapping) else ())
        value = value[name]
    return parse(kind, value, ".".join(path))


def _no(name: str, place: str, known: Iterable[str]) -> UserError:
    return UserError(f"params.yaml: no '{name}' under {place or 'its top level'}; {closest(name, map(str, known))}")


def parse(kind: type[P], value: Any, where: str) -> P:
    """`value` as the frozen class `kind`; `where` is the section's name for the message."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UserError(f"params.yaml: {_first_problem(kind, error, where)}") from None


def _first_problem(kind: type[Params], error: ValidationError, where: str) -> str:
    # A mistyped key is both unknown and missing: what was typed says more than what was not.
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    place = ".".join([where, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        *outer, key = map(str, problem["loc"])
        return f"unknown key {place}; {closest(key, _fields(kind, outer))}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    return f"{place} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"


def _fields(kind: type[BaseModel], path: Sequence[str]) -> Iterable[str]:
    """The keys of the section that lies at `path` inside a section of this kind."""
    for name in path:
        inner = kind.model_fields[name].annotation if name in kind.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ()
        kind = inner
    return kind.model_fields
