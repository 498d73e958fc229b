"""One rule for the names that people give: they become names of files, folders and table entries."""

import re

from sae_transfer.core.errors import UserError

LONGEST = 64  # characters; several names and endings make one file name, of which file systems take 255 bytes
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?![.]|$))*")
# What the project calls something of its own, and what Windows takes for a device, whatever its ending.
TAKEN = re.compile(
    r"text|verbal|residual|mean|all|pooled|layer_\d+|manifest|(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE
)


def check_name(name: str, what: str) -> str:
    """The name as it is, if it makes a file name everywhere and means nothing else; `what` it names, for the message.

    Raises:
        UserError: it has other characters, is too long, or is a word with a meaning of its own (which).
    """
    if len(name) > LONGEST:
        raise UserError(f"{what} {name[:20]!r}...: a name has at most {LONGEST} characters, not {len(name)}")
    if not NAME.fullmatch(name):
        odd = next((letter for letter in name if not letter.isascii()), None)
        told = "" if odd is None else f"; {odd!a} is none of these"
        raise UserError(
            f"{what} {name!r}: a name has letters (a to z, A to Z), digits, '_', '-' and single '.', "
            f"begins with no '.' or '-' and ends with no '.'{told}"
        )
    if TAKEN.fullmatch(name):
        raise UserError(f"{what} {name!r}: this word has a meaning of its own here; choose another name")
    return name


def check_names(names: list[str], what: str) -> None:
    """Each name, and that no two are the same file where capital letters make no difference.

    Raises:
        UserError: as `check_name`, or two are the same (both).
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(check_name(name, what).casefold(), name)
        if other != name:
            raise UserError(f"{what} {name!r}: {other!r} is the same file name on many machines; rename one of them")
