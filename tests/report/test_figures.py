"""Every figure is made, equal tables give equal bytes, and numbers are shown as what they are."""

import numpy as np
import pandas as pd
import pytest

from sae_transfer.report.figures import drawings, heatmaps, means, prediction, training_spread
from sae_transfer.report.figures.auc_by_n import auc_by_n
from sae_transfer.results import cells
from sae_transfer.results.headline import headline
from tables import bootstrap_tables, table


@pytest.fixture(scope="module")
def study():
    return table(["alpha", "beta", "gamma"], {"narrow_2": 2}, variations={"beta": ["terse"]})


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_probe_has_a_heatmap_every_rival_a_difference_and_controls_have_none(study):
    names = list(drawings.of_transfer(study))
    rivals = ["layer_2_mean_difference", "narrow_2_sparse_1", "narrow_2_sparse_n"]
    expected = [f"heatmap_{kind}" for kind in ["layer_2_residual", *rivals]] + [f"difference_{kind}" for kind in rivals]
    assert sorted(names) == sorted([*expected, "auc_by_n"])


@pytest.mark.parametrize("draw", [auc_by_n, lambda t: heatmaps.heatmap(t, "narrow_2", "sparse_1")])
def test_equal_tables_give_equal_bytes(study, draw, tmp_path):
    for folder in ("one", "two"):
        drawings.save(draw(study), tmp_path / folder, "x")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["x.png", "x.svg"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_heatmap_shows_the_selected_rows_under_the_own_template_at_full_size(study):
    smaller = study.assign(n_train=60, auc=0.123)
    both = pd.concat([study, smaller], ignore_index=True)
    shown = texts(heatmaps.heatmap(both, "narrow_2", "sparse_n"))
    row = study[(study["space"] == "narrow_2") & (study["probe"] == "sparse_n") & study["selected"]]
    row = row[(row["train"] == "alpha") & (row["test"] == "beta") & (row["test_variation"] == "default")].iloc[0]
    assert shown[2] == f"{row['auc']:.2f}"
    assert shown[3] == f"{row['auc_low']:.2f}–{row['auc_high']:.2f}"
    assert "0.12" not in shown


def test_bold_marks_the_differences_whose_interval_excludes_zero(study):
    grid = cells.grid(study, "narrow_2", "sparse_1", "delta_residual")
    figure = heatmaps.heatmap(study, "narrow_2", "sparse_1", "delta_residual")
    bold = [text.get_fontweight() == "bold" for text in figure.axes[0].texts[0:18:2]]
    assert bold == [value.excludes_zero for row in grid.values for value in row]
    assert any(bold)
    assert not all(bold)


def test_missing_numbers_are_dashes_never_zero(study):
    gone = study.copy()
    gone.loc[gone["test"] == "gamma", ["auc", "auc_low", "auc_high"]] = np.nan
    gone = gone[~((gone["train"] == "beta") & (gone["test"] == "alpha"))]
    values = cells.grid(gone, "layer_2", "residual").values
    assert [value.text for value in values[0]][2] == "–"
    assert values[1][0].reason == "not measured"
    means.means(headline(gone))
    assert texts(heatmaps.heatmap(gone, "layer_2", "residual"))[4:6] == ["–", ""]
    assert heatmaps.colours(np.nan, "auc")[0] == "#dddddd"


def test_a_study_without_saes_is_drawn(study):
    layers = study[study["sae"] == ""]
    names = drawings.of_transfer(layers)
    assert "auc_by_n" not in names
    assert [title for title, _ in cells.panels(layers)] == ["layer 2"]


def test_the_means_are_those_of_the_headline_table_probes_first_controls_last(study):
    table = headline(study)
    axes = means.means(table).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[0] == "residual stream probe"
    assert labels[-1].startswith("shuffled labels")
    inside, outside = (np.asarray(line.get_xdata(), dtype=float) for line in axes.lines[:2])
    rows = means.shown(table)
    assert inside == pytest.approx(rows["auc_in_domain"].dropna())
    assert outside == pytest.approx(rows["auc_ood"].dropna())
    assert len(outside) == len(labels) - 1  # the model's own words are not tested out of domain


def test_panels_share_their_axes_and_the_diagonal_of_the_oracle_is_at_45_degrees():
    rows = [
        {"sae": sae, "oracle": "trained_on_target", "probe": "sparse_1", "verdict": "open", "auc": a, "oracle_auc": b}
        for sae, a, b in (("one", 0.2, 0.99), ("one", 0.8, 0.9), ("two", 0.6, 1.0))
    ]
    one, two = prediction.oracle_gap(pd.DataFrame(rows)).axes[:2]
    assert one.get_xlim() == two.get_xlim()
    assert one.get_ylim() == two.get_ylim()
    assert one.get_aspect() == 1


def test_ink_contrasts_with_every_background():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    for column, low, high in (("auc", 0, 1), ("delta_residual", -1, 1)):
        for value in np.linspace(low, high, 101):
            dark, light = sorted(map(luminance, heatmaps.colours(value, column)))
            assert (light + 0.05) / (dark + 0.05) > 4, (column, value)


def test_the_spread_over_training_samples_is_that_of_probes_on_all_rows(study):
    spread, _ = bootstrap_tables(study)
    spread = spread[spread["layer"].notna()]
    smaller = spread.assign(n_train=60, auc_sd=5.0)
    panel = training_spread.training_spread(pd.concat([spread, smaller], ignore_index=True)).axes[0]
    drawn = np.concatenate([line.get_ydata() for line in panel.lines])
    chosen = spread[spread["selected"] & (spread["resampling"] == "bootstrap")]
    assert sorted(drawn) == pytest.approx(sorted(chosen["auc_sd"]))


def only_predictors(rows):
    transfer = table(["alpha"], {})
    known = drawings.every({"transfer": transfer, "predictors": pd.DataFrame(rows)})
    return {name: draw for name, draw in known.items() if name in ("predictors", "held_out")}


def test_a_figure_for_which_all_numbers_are_missing_has_no_panels():
    one = {"sae": "s", "predictor": "agreement", "candidates": "features", "target_access": "no", "held_out": "a"}
    within = one | {"scope": "within", "role": "", "spearman": 0.5, "spearman_min": 0.2, "spearman_max": 0.7, "r2": 0.1}
    unknown = within | {"scope": "held_out", "role": "target", "r2": np.nan}
    known = only_predictors([within, unknown])
    assert {name: len(draw().axes) for name, draw in known.items()} == {"predictors": 1, "held_out": 0}
    known = only_predictors([within, unknown | {"r2": 0.2}])
    assert {name: len(draw().axes) for name, draw in known.items()} == {"predictors": 1, "held_out": 1}
