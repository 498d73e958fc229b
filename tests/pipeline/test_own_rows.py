"""Transfer between a person's own rows: the table of the pipeline, by the same functions."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from planted import layer_domain, sae_domain
from project import LAYER, SAE, SIZES
from sae_transfer import Rows, heatmap, transfer
from sae_transfer.core import paths
from sae_transfer.core.errors import UserError
from sae_transfer.probing.probe_params import ProbeParams
from sae_transfer.results import cells
from sae_transfer.results.transfer_table import TRANSFER

KEY = ["train", "test", "probe", "rank", "n_features"]
STUDYS_OWN = ["model", "layer", "sae", "train_variation", "test_variation", "n_overlap"]
QUICK = ProbeParams(n_folds=3, C_grid=(0.1,), N=(2,), top_k=1)


@pytest.mark.parametrize(
    ("space", "kinds"), [(LAYER, ("residual", "mean_difference")), (SAE, ("sparse_1", "sparse_n"))]
)
def test_the_rows_of_a_study_give_the_numbers_of_the_study(project, space, kinds):
    study = project.study

    def parts(of):
        return {
            name: tuple(
                Rows.of(rows.X, rows.labels == 1, rows.groups)
                for rows in (study.rows(of, name), study.rows(of, name, "test"))
            )
            for name in study.datasets
        }

    found = transfer(
        parts(space),
        kinds,
        streams=parts(LAYER),
        space=space,
        probe=study.params.probe,
        resamples=study.params.transfer.resamples,
    )
    made = [pd.read_parquet(study.path(paths.TRANSFER) / space / f"{name}.rows.parquet") for name in study.datasets]
    table = cells.own_template(pd.concat(made))
    wanted = table[table["probe"].isin(kinds) & (table["n_train"] == SIZES[0])]
    assert list(found.columns) == TRANSFER.names
    found, wanted = (part.sort_values(KEY).drop(columns=STUDYS_OWN).reset_index(drop=True) for part in (found, wanted))
    assert_frame_equal(found, wanted, check_exact=True, check_dtype=False)
    assert len(found) >= 8


def test_whole_datasets_are_tested_on_one_another_alone():
    own = {name: layer_domain(seed, n=80, d=4, direction=[2, 0, 0, 0]) for seed, name in enumerate("AB")}
    table = transfer(own, ["mean_difference"], probe=QUICK, resamples=200)
    assert table[["train", "test"]].to_numpy().tolist() == [["B", "A"], ["A", "B"]]
    assert (table["auc_low"] < table["auc"]).all()
    assert table["delta_residual_low"].notna().all()  # to a residual probe that nobody asked for
    assert not table["in_domain"].any()
    drawn = {text.get_text() for text in heatmap(table, "own", "mean_difference").figure.axes[0].texts}
    assert {f"{area:.2f}" for area in table["auc"]} <= drawn


def test_sae_features_alone_have_no_residual_probe_beside_them():
    own = {name: sae_domain(seed, n=80, d=20, planted={3: (0.1, 0.9)}) for seed, name in enumerate("AB")}
    table = transfer(own, ["sparse_1"], probe=QUICK, resamples=200)
    assert table["delta_residual"].isna().all()
    assert table["reason"].str.contains("delta_residual: a space without a layer").all()
    assert set(table["feature_ids"]) == {"3"}


@pytest.mark.parametrize(
    ("change", "kinds", "message"),
    [
        ({}, ["best"], "probe 'best' is unknown"),
        (
            {"B": layer_domain(1, n=80, d=5)},
            ["residual"],
            r"X has \d columns, and the residual probe was trained on \d",
        ),
        ({"B": sae_domain(1, n=80, d=4)}, ["residual"], "the residual probe reads dense rows, and X is sparse"),
        ({}, ["sparse_1"], "the matrix of features has -"),
    ],
)
def test_what_does_not_fit_is_refused(change, kinds, message):
    own = {name: layer_domain(seed, n=80, d=4) for seed, name in enumerate("AB")} | change
    with pytest.raises(UserError, match=message):
        transfer(own, kinds, probe=QUICK, resamples=50)


ROWS = layer_domain(0, n=80, d=4)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"A": ROWS}, "one dataset alone is tested on nothing; give another"),
        ({}, "one dataset alone is tested on nothing"),
        ({"A": (ROWS, ROWS)}, "A: g0 is in its training rows and in its test rows; part them"),
        ({"A": (ROWS.take(np.arange(41)), ROWS.take(np.arange(41, 80)))}, "A: g20 is in its training rows"),
        ({"A": ROWS, "B": ROWS.X}, r"B: give Rows.of\(X, y, groups\), or a pair of them"),
        ({"A": ROWS, "B": (ROWS,) * 3}, "B: give Rows.of"),
    ],
)
def test_what_is_no_fair_test_is_refused(own, message):
    with pytest.raises(UserError, match=message):
        transfer(own, ["mean_difference"], probe=QUICK, resamples=50)


def test_streams_are_of_the_same_rows():
    own = {name: sae_domain(seed, n=80, d=20) for seed, name in enumerate("AB")}
    streams = {"A": layer_domain(0, n=80), "B": layer_domain(1, n=60)}
    with pytest.raises(UserError, match=r"streams has the rows .*'B': .60, 60.*; give the same rows"):
        transfer(own, ["sparse_1"], streams=streams, probe=QUICK)


def test_a_heatmap_names_what_there_is():
    table = TRANSFER.frame([])
    with pytest.raises(UserError, match="own: no rows of 'sparse_1'; known: none"):
        heatmap(table, "own", "sparse_1")
    with pytest.raises(UserError, match="column 'f1' has no heatmap; known: auc, delta_residual"):
        heatmap(table, "own", "sparse_1", "f1")


def test_the_same_seed_gives_the_same_table():
    own = {name: layer_domain(seed, n=60, d=3) for seed, name in enumerate("AB")}
    one, same, other = (transfer(own, probe=QUICK, resamples=100, seed=seed) for seed in (0, 0, 1))
    assert_frame_equal(one, same)
    assert not np.array_equal(one["auc_low"], other["auc_low"])
