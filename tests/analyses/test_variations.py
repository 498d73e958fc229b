"""Templates under which a planted signal stays, vanishes or moves to another feature."""

import numpy as np
import pytest

from planted import QUICK, SHARED, SPURIOUS, balanced, features, groups_of, layer_domain
from sae_transfer.analyses.variations import TABLE, moved, section, variation_rows
from sae_transfer.probing import evaluations, residual_probes, sae_probes
from sae_transfer.probing.rows import Rows
from sae_transfer.stats import intervals

FIRES = (0.05, 0.9)
DIRECTION = np.r_[4.0, np.zeros(19)]


def stacked(*parts):
    return Rows(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("X", "labels", "groups")),
    )


def shifted(rows, by):
    return Rows(rows.X + by, rows.labels, rows.groups)


def bootstrap(rows, resamples=200):
    return evaluations.evaluation_of(rows.labels, rows.groups, "d", 0, evaluations.TransferParams(resamples=resamples))


@pytest.fixture(scope="module")
def layers():
    """`same`: the stream is moved where no probe looks. `moved`: along the probe. `mute`: the signal is gone."""
    train, test = layer_domain(0, direction=DIRECTION), layer_domain(1, direction=DIRECTION)
    along, aside = np.r_[6.0, np.zeros(19)], np.r_[np.zeros(19), 1e-6]

    def under(rows):
        mute = Rows(rows.X * np.r_[0.0, np.ones(19)], rows.labels, rows.groups)
        return {"own": rows, "same": shifted(rows, aside), "moved": shifted(rows, along), "mute": mute}

    trains, tests = under(train), under(test)
    fitted = {name: residual_probes.residual(rows, 0, QUICK) for name, rows in trains.items()}
    fitted["pooled"] = residual_probes.residual(stacked(trains["own"], trains["mute"]), 0, QUICK)
    return TABLE.frame(variation_rows(fitted, tests, bootstrap(tests["own"]))).set_index(
        ["train_variation", "test_variation"]
    )


def test_what_does_not_concern_the_probe_moves_nothing(layers):
    row = layers.loc["own", "same"]
    assert row["delta_auc"] == row["delta_accuracy"] == 0
    assert row["delta_auc_low"] == row["delta_auc_high"] == 0


def test_a_shift_along_the_probe_keeps_the_ranking_and_costs_accuracy(layers):
    row = layers.loc["own", "moved"]
    assert row["delta_auc"] == pytest.approx(0, abs=1e-9)
    assert row["delta_accuracy_high"] < -0.3
    assert layers.loc["moved", "moved"]["accuracy"] == pytest.approx(layers.loc["own", "own"]["accuracy"], abs=0.02)


def test_a_signal_that_is_gone_is_lost_to_every_training(layers):
    assert layers.loc["own", "mute"]["delta_auc_high"] < -0.2
    assert layers.loc["mute", "mute"]["auc_low"] < 0.5 < layers.loc["mute", "mute"]["auc_high"]
    assert layers.loc["own", "own"]["cosine_to_default"] == pytest.approx(1)
    assert layers.loc["mute", "own"]["cosine_to_default"] < 0.3


def test_training_on_all_templates_keeps_what_one_of_them_carries(layers):
    assert layers.loc["pooled", "own"]["delta_auc_low"] > -0.05
    assert layers.loc["own", "own"]["reason"].startswith("delta_auc: what the others are compared with")


def sae_rows(seed, feature):
    rng = np.random.default_rng(seed)
    labels = balanced(np.random.default_rng(5), 240)
    return Rows(features(rng, labels, planted={feature: FIRES}), labels, groups_of(240, 2))


def test_whether_the_same_features_are_selected():
    trains = {"own": sae_rows(0, SHARED), "same": sae_rows(1, SHARED), "other": sae_rows(2, SPURIOUS)}
    tests = {"own": sae_rows(3, SHARED), "other": sae_rows(4, SPURIOUS)}
    fitted = {name: sae_probes.sparse_probes(rows, 0, QUICK) for name, rows in trains.items()}
    rows = TABLE.frame(variation_rows(fitted, tests, bootstrap(tests["own"])))
    single = rows[rows["probe"] == "sparse_1"].set_index(["train_variation", "test_variation"])
    assert list(single["same_best"]) == [True] * 4 + [False] * 2
    assert single.loc["own", "own"]["jaccard"] == 1
    top = [{int(p.feature_ids[0]) for p in fitted[name] if p.kind == "sparse_1"} for name in ("own", "same")]
    assert single.loc["same", "own"]["jaccard"] == len(top[0] & top[1]) / len(top[0] | top[1]) < 1
    assert single.loc["own", "other"]["delta_auc_high"] < -0.2
    assert single.loc["other", "other"]["auc"] > 0.85
    many = rows[rows["probe"] == "sparse_n"]
    assert many["jaccard"].notna().all()
    assert many["same_best"].isna().all()
    found = moved(rows.assign(dataset="d", space="s")).set_index("probe").loc["sparse_1"]
    other = single.loc["own", "other"]
    assert (found["n"], found["lower"], found["worst"]) == (1, 1, other["delta_auc"])
    claim = section({"variations": rows.assign(dataset="d", space="s")}).claim
    assert f"moves by \N{MINUS SIGN}{-other['delta_auc']:.2f} (d, 1-sparse SAE probe), " in claim


def test_a_pair_is_resampled_together():
    rows = layer_domain(3, direction=DIRECTION)
    fitted = {"own": residual_probes.residual(rows, 0, QUICK), "other": residual_probes.mean_difference(rows, 0, QUICK)}
    fitted["other"] = [type(p)(**{**vars(p), "kind": "residual"}) for p in fitted["other"]]
    test = bootstrap(rows)
    _, row = variation_rows(fitted, {"own": rows}, test)
    first, other = (evaluations.bootstrapped_auc(fitted[name][0].score(rows.X), test) for name in fitted)
    expected = intervals.difference_interval(
        other.auc, first.auc, other.resampled, first.resampled, test.effective_groups
    )
    assert (row["delta_auc_low"], row["delta_auc_high"]) == (expected.low, expected.high)
    assert row["delta_auc"] == expected.value != 0


def test_bad_input_is_missing_with_its_reason():
    train = layer_domain(0, direction=DIRECTION)
    one_class = Rows(train.X[train.labels == 1], train.labels[train.labels == 1], train.groups[train.labels == 1])
    constant = Rows(np.zeros_like(one_class.X), one_class.labels, one_class.groups)
    fitted = {"own": residual_probes.residual(train, 0, QUICK), "other": "no feature fires"}
    rows = TABLE.frame(variation_rows(fitted, {"own": one_class, "other": constant}, bootstrap(one_class)))
    assert rows["auc"].isna().all()
    assert rows["reason"][0].startswith("auc: one class; ")
    assert list(rows["reason"][2:]) == ["auc: no feature fires"] * 2
    few = Rows(train.X, train.labels, groups_of(len(train), 60))
    row = next(iter(variation_rows(fitted, {"own": few}, bootstrap(few))))
    assert np.isnan(row["auc_low"])
    assert "auc: 4 groups, fewer than 10" in row["reason"]
