"""A person's mistake, and the words that help whoever mistyped a name."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A person's mistake: one line that names the thing, the value and the remedy. Commands exit with code 2.

    What does not print is escaped: names and values come from files, and one must not break the line or the terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(each if each.isprintable() else ascii(each)[1:-1] for each in message))


def closest(name: str, known: Iterable[str]) -> str:
    """The part of a message that helps someone who mistyped: the closest known names, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
