"""Sections of params.yaml: frozen and strict, with a message that helps whoever mistyped a key."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from sae_transfer.core.errors import UserError, closest

PARAMS_FILE = Path("params.yaml")
MOST_VALUES = 100_000  # in a params file
LONGEST_FILE_NAME = 255  # bytes
LONGEST_SHOWN = 80  # characters of a value or a key in a message


class ParamsSection(BaseModel):
    """Base of every section of the params; each lives beside the code that uses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=ParamsSection)


def _as_text(names: Any) -> Any:
    return tuple(map(str, names)) if isinstance(names, list | tuple) else names


def is_place(path: Path) -> Path:
    """The path as it is, if something to read can lie there.

    Raises:
        ValueError: no file system has such a name, or it is the project itself or a folder around it.
    """
    if "\0" in str(path) or any(len(os.fsencode(part)) > LONGEST_FILE_NAME for part in path.parts):
        raise ValueError("no file can have this name; correct it")
    if Path.cwd().is_relative_to(os.path.realpath(path)):
        raise ValueError("is the whole project or a folder around it; name a file or folder in it")
    return path


Place = Annotated[Path, AfterValidator(is_place)]
"""Where something to read lies: a file or a folder, in the project or elsewhere."""

Names = Annotated[tuple[str, ...], BeforeValidator(_as_text)]
"""Names of datasets or SAEs in a list; YAML reads a dataset named 2024 as a number."""


def read_yaml(path: Path) -> dict[str, Any]:
    """A params file as plain values.

    Raises:
        UserError: it is missing or cannot be read, is not YAML (with its line), has a name twice or no names at all, or
            aliases that lead back to themselves or unfold into far more than a person writes.
    """
    try:
        params = _loaded(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run this from the project's root, where params.yaml lies") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); correct what lies there") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" line {place.line + 1}" if place else ""
        raise UserError(f"{path}{line}: not valid YAML; correct it, or restore it with git") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply; correct it, or restore it with git") from None
    except ValueError as error:  # a date that no calendar has, a number of thousands of digits
        raise UserError(f"{path}: a value is none ({error}); put quotes around it, or correct it") from None
    if not isinstance(params, dict):
        raise UserError(f"{path}: expected sections (name: value), found {type(params).__name__}")
    return params


def _loaded(text: str, path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        if (document := loader.get_single_node()) is None:
            return None
        _count(document, path, {})
        return loader.construct_document(document)
    finally:
        loader.dispose()


def _count(node: yaml.Node, path: Path, known: dict[int, int]) -> int:
    """How many values a node unfolds into, each alias as what it stands for.

    Raises:
        UserError: a name stands twice in one section, or there are too many values.
    """
    if id(node) not in known:
        known[id(node)] = MOST_VALUES  # until it is counted: an alias inside that leads here would never end
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, path)
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_count(each, path, known) for each in inner)
    if known[id(node)] > MOST_VALUES:
        raise UserError(f"{path} line {node.start_mark.line + 1}: aliases unfold without end; write it without them")
    return known[id(node)]


def _check_keys(node: yaml.MappingNode, path: Path) -> None:
    seen = set[str]()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise UserError(f"{path} line {key.start_mark.line + 1}: {key.value!r} is there twice; delete one")
            seen.add(key.value)


def parse(kind: type[S], value: Any, where: str = "") -> S:
    """`value` as the frozen class `kind`; `where` is the section's name for the message.

    Raises:
        UserError: a key is missing or unknown (with the closest names), or a value has a wrong type.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise UserError(_first_problem(kind, error, where)) from None


def _first_problem(kind: type[ParamsSection], error: ValidationError, where: str) -> str:
    # A mistyped key is both unknown and missing: what was typed says more than what was not.
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    place = ".".join(filter(None, [where, *(_cut(str(part)) for part in problem["loc"])]))
    if problem["type"] == "extra_forbidden":
        *outer, key = map(str, problem["loc"])
        return f"unknown key {place}; {closest(key, _fields(kind, outer))}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    told = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    return f"{place}: {told}" if isinstance(value, dict | BaseModel) else f"{place} = {_cut(repr(value))}: {told}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _fields(kind: type[BaseModel], path: Sequence[str]) -> Iterable[str]:
    """The keys of the section that lies at `path` inside a section of this kind."""
    found: Any = kind
    for name in path:
        if get_origin(found) is dict:  # sections by name, whatever the name
            found = get_args(found)[1]
        elif _is_section(found) and name in found.model_fields:
            found = found.model_fields[name].annotation
        else:
            return ()
    return found.model_fields if _is_section(found) else ()


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, BaseModel)
