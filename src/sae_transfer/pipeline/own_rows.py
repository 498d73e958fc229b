"""The transfer table of a person's own rows, by the functions that the stages `fit` and `transfer` call."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from sae_transfer.core.errors import UserError
from sae_transfer.probing.evaluations import (
    BootstrappedAUC,
    Evaluation,
    TransferParams,
    bootstrapped_auc,
    evaluation_of,
)
from sae_transfer.probing.kinds import fit_kinds
from sae_transfer.probing.probe import Probe
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.probing.rows import Rows
from sae_transfer.probing.scoring import evaluated
from sae_transfer.results.transfer_table import TRANSFER

Own = Mapping[str, Rows | tuple[Rows, Rows]]
"""By dataset, all of its rows, or (training rows, test rows)."""
NO_STUDY: dict[str, Any] = dict.fromkeys(
    ("model", "sae", "train_variation", "test_variation"), ""
)  # what only a study knows
STREAM = ("residual", "mean_difference")  # kinds whose rows are a residual stream


def transfer(
    datasets: Own,
    kinds: Sequence[str] = ("residual",),
    *,
    streams: Own | None = None,
    space: str = "own",
    seed: int = 0,
    probe: ProbeParams | None = None,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Probes trained on each dataset and tested on each, with intervals: the table `transfer` of a study.

    Args:
        datasets: by name, `Rows.of(X, y, groups)`: probes are trained on all of A's rows and tested on all of B's, and
            no dataset is tested on itself. Or (training rows, test rows), which share no group: then A is tested too.
        kinds: of `residual`, `mean_difference` (dense rows), `sparse_1` and `sparse_n` (SAE features).
        streams: the same rows in the residual stream, for the difference of SAE probes to its probe; by default
            `datasets` where a kind reads the residual stream, and no difference elsewhere.
        space: what to call the rows' space in the table.
        seed: of folds and resamples.
        probe: how probes are trained.
        resamples: of B's groups, for the intervals.

    Returns:
        One row for each (A, B, probe), with the columns of `results/transfer.csv`; what only a study knows is empty.
        The bootstrap of B depends on the seed and B's name, so all probes share it.

    Raises:
        UserError: an unknown kind; rows of different widths; a dataset that is no rows, or nothing to test it on; a
            group in A's training rows and in its test rows; or as the probes' training.

    >>> def rows(seed):
    ...     rng = np.random.default_rng(seed)
    ...     y = rng.integers(0, 2, 100)
    ...     return Rows.of(rng.normal(size=(100, 8)) + y[:, None] * [2, 0, 0, 0, 0, 0, 0, 0], y)
    >>> table = transfer({"A": rows(0), "B": rows(1)}, ["mean_difference"])
    >>> table[["train", "test", "auc", "auc_low", "auc_high"]].round(2)
      train test   auc  auc_low  auc_high
    0     B    A  0.93     0.87      0.97
    1     A    B  0.89     0.80      0.94
    """
    _check(datasets)
    if streams is None and set(kinds) & set(STREAM):
        streams = datasets
    if streams is not None and _sizes(streams) != _sizes(datasets):
        raise UserError(f"streams has the rows {_sizes(streams)}, and datasets {_sizes(datasets)}; give the same rows")
    chosen = probe or ProbeParams()
    fitted = {name: fit_kinds(kinds, _train(rows), seed, chosen) for name, rows in datasets.items()}
    residual = _residuals(fitted, streams, seed, chosen)
    found: list[dict[str, Any]] = []
    for test, train in product(datasets, datasets):
        split = datasets[test]
        if test == train and isinstance(split, Rows):
            continue
        rows, of_b = _test(split), _evaluation(split, test, seed, resamples)
        against: BootstrappedAUC | None = None
        if streams is not None:
            against = bootstrapped_auc(residual[train].score(_test(streams[test]).X), of_b)
        about: dict[str, Any] = {
            "space": space,
            "train": train,
            "test": test,
            "in_domain": train == test,
            "condition": "test",
        }
        about |= {"n_test": len(rows), "n_groups": of_b.n_groups} | NO_STUDY
        found += [about | row for row in evaluated(fitted[train], {"space": rows.X}, of_b, against)]
    return TRANSFER.frame(found)


def _check(datasets: Own) -> None:
    for name, rows in datasets.items():
        parts = [rows] if isinstance(rows, Rows) else list(rows) if isinstance(rows, tuple) else []
        if len(parts) not in (1, 2) or not all(isinstance(part, Rows) for part in parts):
            raise UserError(f"{name}: give Rows.of(X, y, groups), or a pair of them: (training rows, test rows)")
        if len(parts) == 2 and (parts[0] is parts[1] or _shared(*parts)):
            raise UserError(
                f"{name}: {_shared(*parts) or 'all'} is in its training rows and in its test rows; part them"
            )
    if len(datasets) < 2 and all(isinstance(rows, Rows) for rows in datasets.values()):
        raise UserError("one dataset alone is tested on nothing; give another, or (training rows, test rows)")


def _shared(train: Rows, test: Rows) -> str:
    """A group in both; where no row shares its group with another, groups are the numbers of rows and say nothing."""
    if train.n_groups == len(train) and test.n_groups == len(test):
        return ""
    return str(min(set(train.groups) & set(test.groups), default=""))


def _sizes(of: Own) -> dict[str, tuple[int, int]]:
    return {name: (len(_train(rows)), len(_test(rows))) for name, rows in of.items()}


def _train(rows: Rows | tuple[Rows, Rows]) -> Rows:
    return rows if isinstance(rows, Rows) else rows[0]


def _test(rows: Rows | tuple[Rows, Rows]) -> Rows:
    return rows if isinstance(rows, Rows) else rows[1]


def _evaluation(rows: Rows | tuple[Rows, Rows], name: str, seed: int, resamples: int) -> Evaluation:
    test = _test(rows)
    return evaluation_of(test.labels, test.groups, name, seed, TransferParams(resamples=resamples))


def _residuals(
    fitted: Mapping[str, Sequence[Probe]], streams: Own | None, seed: int, params: ProbeParams
) -> dict[str, Probe]:
    """By dataset, the residual probe that others are compared with: one that was asked for, or one for this alone."""
    found: dict[str, Probe] = {}
    for name, rows in (streams or {}).items():
        there = [probe for probe in fitted[name] if probe.kind == "residual"]
        found[name] = (there or fit_kinds(["residual"], _train(rows), seed, params))[0]
    return found
