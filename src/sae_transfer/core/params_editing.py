"""Changes to params.yaml that leave every comment and every other line as it was."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sae_transfer.core import files


@contextmanager
def editing(path: Path, section: str) -> Iterator[Any]:
    """The params of a file as nested mappings, written back at the end; new lines go to the end of `section`."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10_000
    yaml.representer.add_representer(type(None), _null)
    params = yaml.load(path.read_text(encoding="utf-8"))
    before = _last(params[section])
    yield params
    _move_gap(before, _last(params[section]))
    text = io.StringIO()
    yaml.dump(params, text)
    files.write_text(path, text.getvalue())


def flow(text: str) -> Any:
    """YAML such as `{a: 1, b: [2]}`, which stays on one line."""
    from ruamel.yaml import YAML

    return YAML().load(text)


def _null(representer: Any, _: None) -> Any:
    """`null` as it is written in params.yaml; ruamel would leave the place empty."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _last(section: Any) -> tuple[Any, str]:
    """The mapping and the key of a section's last line."""
    from ruamel.yaml.comments import CommentedMap

    key = list(section)[-1]
    inner = section[key]
    block = isinstance(inner, CommentedMap) and len(inner) and not inner.fa.flow_style()
    return _last(inner) if block else (section, key)


def _move_gap(before: tuple[Any, str], after: tuple[Any, str]) -> None:
    """The empty lines and comments before the next section, which ruamel counts to the last line of this one."""
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    mapping, key = before
    token = (mapping.ca.items.get(key) or [None] * 3)[2]
    if token is None or (before[0] is after[0] and key == after[1]):
        return
    own, gap = token.value.split("\n", 1)
    token.value = f"{own}\n"
    if gap:
        mapping, key = after
        mapping.ca.items[key] = [None, None, CommentToken(f"\n{gap}", CommentMark(0), None), None]
