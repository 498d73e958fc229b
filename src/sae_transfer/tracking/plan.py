"""Which runs a store lacks and which it holds in vain. Pure functions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """A run of this study that the store holds. A run that is not `finished` was cut off while it was written."""

    run_id: str
    fingerprint: str
    finished: bool
    superseded: bool
    parent: str = ""


@dataclass(frozen=True)
class Plan:
    """What to do, in this order. `kept` are run ids by fingerprint; `create` are fingerprints, the rest run ids."""

    delete: list[str]
    kept: dict[str, str]
    create: list[str]
    revive: list[str]
    adopt: list[str]
    supersede: list[str]


def upsert(wanted: Sequence[str], found: Iterable[Found], parent: str = "") -> Plan:
    """How the store comes to hold each wanted fingerprint once.

    Runs that were cut off are deleted. A wanted run that was superseded once is revived. One that hangs under another
    parent is adopted. Whatever else is there is superseded.

    Args:
        wanted: fingerprints.
        found: the study's runs in the store.
        parent: run id that they shall hang under.
    """
    found = sorted(found, key=lambda run: run.superseded)  # where two are equal, keep the one that counts
    whole = [run for run in found if run.finished]
    kept: dict[str, Found] = {}
    needed = set(wanted)
    for run in whole:
        if run.fingerprint in needed:
            kept.setdefault(run.fingerprint, run)
    ids = {run.run_id for run in kept.values()}
    return Plan(
        delete=[run.run_id for run in found if not run.finished],
        kept={fingerprint: run.run_id for fingerprint, run in kept.items()},
        create=[fingerprint for fingerprint in wanted if fingerprint not in kept],
        revive=[run.run_id for run in kept.values() if run.superseded],
        adopt=[run.run_id for run in kept.values() if run.parent != parent],
        supersede=[run.run_id for run in whole if run.run_id not in ids and not run.superseded],
    )
