"""Each warning says what was counted, and nothing where all is well."""

import numpy as np
import pandas as pd
import pytest

from sae_transfer.results import counts, warnings
from sae_transfer.results.headline import headline
from tables import table

GOOD = {"sae": "narrow_2", "layer": 2, "width": 64, "l0": 8.0, "explained_variance": 0.9, "dead": 0.1}
ROWS = {"n_train": 240, "n_test": 40, "prompts": 280, "words": 30, "truncated": 0, "unknown_tokens": 0}


@pytest.fixture(scope="module")
def study():
    return table(["alpha", "beta"], {"narrow_2": 2}).assign(density=0.5)


def tables(study, health=(), **dataset):
    """All tables of a study without a warning, but for what is given."""
    saes = health or [GOOD | {"dataset": name} for name in ("alpha", "beta", "all")]
    data = [{"dataset": name} | ROWS | dataset for name in ("alpha", "beta")]
    return {
        "transfer": study,
        "headline": headline(study),
        "health": counts.HEALTH.frame(saes),
        "datasets": counts.DATASETS.frame(data),
    }


def said(warning, found):
    return [(notice.severity, notice.subject, notice.sentence) for notice in warning(found)]


def test_a_sound_study_has_no_warning(study):
    sound = study.copy()
    sound.loc[sound["space"] == "text", ["auc", "auc_low", "auc_high"]] = 0.5
    assert warnings.warnings(tables(sound)) == []


def test_an_sae_that_explains_little_is_named_with_its_worst_dataset(study):
    bad = [
        GOOD | {"dataset": "alpha", "explained_variance": 0.3},
        GOOD | {"dataset": "beta", "explained_variance": -11},
    ]
    [(severity, subject, sentence)] = said(warnings.explained_variance, tables(study, bad))
    assert (severity, subject) == ("serious", "narrow_2")
    assert sentence.startswith("narrow_2 explains −11.00 of the variance on beta and on 1 more dataset: worse than")
    [(severity, _, sentence)] = said(warnings.explained_variance, tables(study, bad[:1]))
    assert severity == "warning"
    assert "explains 0.30 of the variance on alpha: what it misses has no feature" in sentence


def test_dead_features_are_those_of_all_datasets_together(study):
    alone = [GOOD | {"dataset": "alpha", "dead": 0.9}, GOOD | {"dataset": "all", "dead": 0.2}]
    assert said(warnings.dead_features, tables(study, alone)) == []
    told = said(warnings.dead_features, tables(study, [GOOD | {"dataset": "all", "dead": 0.6}]))
    assert told == [("note", "narrow_2", "60% of the features of narrow_2 fire on no prompt.")]


def test_cut_prompts_and_unknown_tokens_are_counted_by_dataset(study):
    told = said(warnings.truncated_prompts, tables(study, truncated=758, prompts=800))
    assert told[0] == ("warning", "alpha", "758 of 800 prompts of alpha were cut; their labels are kept.")
    assert [subject for _, subject, _ in told] == ["alpha", "beta"]
    [first, _] = said(warnings.unknown_tokens, tables(study, unknown_tokens=3))
    assert first[2] == "The tokenizer reads an unknown token 3 times in 280 prompts of alpha."


@pytest.mark.parametrize(("context", "words", "warned"), [(64, 200, True), (64, 64, False), (None, 200, False)])
@pytest.mark.parametrize("counted", [True, False])
def test_prompts_longer_than_what_the_sae_saw(study, context, words, warned, counted):
    length = {"tokens": words, "words": 1} if counted else {"words": words}
    health = [GOOD | {"dataset": "alpha", "context_size": context}]
    told = said(warnings.longer_than_in_training, tables(study, health, **length))
    assert len(told) == warned
    if warned:
        assert told[0][2] == (
            "narrow_2 was trained on 64 tokens of context; a prompt of alpha and on 1 more dataset has 200."
        )


def test_batches_of_one_length_are_told(study):
    assert said(warnings.batches, tables(study, padding="right", batch_difference=1e-7)) == []
    [(severity, _, sentence)] = said(warnings.batches, tables(study, padding="none", batch_difference=0.53))
    assert severity == "note"
    assert "(alpha 53%, beta 53%): only prompts of one length shared a batch." in sentence


def test_a_chosen_feature_that_fires_on_no_row_of_b_is_counted_once(study):
    silent = study.copy()
    pair = (silent["train"] == "alpha") & (silent["test"] == "beta") & (silent["probe"] == "sparse_1")
    silent.loc[pair, "density"] = 0.0
    [(severity, _, sentence)] = said(warnings.silent_features, tables(silent))
    assert severity == "warning"
    assert sentence.startswith("In 1 of 2 pairs the chosen feature fires on no test row of B (narrow_2 1)")
    in_domain = study.assign(density=np.where(study["in_domain"], 0.0, 0.5))
    assert said(warnings.silent_features, tables(in_domain)) == []


def test_rows_that_are_left_out_are_told_by_pair_once(study):
    fewer = study.copy()
    fewer.loc[(fewer["train"] == "alpha") & (fewer["test"] == "beta"), "n_overlap"] = 12
    told = said(warnings.overlap, tables(fewer))
    sentence = "12 of 52 test rows of beta stand among alpha's training rows: left out of alpha to beta."
    assert told == [("note", "beta", sentence)]
    assert warnings.shared_rows("a", "b", 1, 9).sentence.startswith("1 of 9 test rows of b stands among")


def test_a_test_set_without_intervals_and_a_study_that_tests_nothing(study):
    blind = study.copy()
    blind.loc[blind["test"] == "beta", ["auc_low", "auc_high"]] = np.nan
    assert [subject for _, subject, _ in said(warnings.no_interval, tables(blind))] == ["beta"]
    one = said(warnings.not_tested, tables(study[(study["train"] == "alpha") & (study["test"] == "alpha")]))
    assert [(severity, sentence) for severity, _, sentence in one] == [
        ("serious", "Transfer was not tested: the study has one dataset.")
    ]
    no_sae = said(warnings.not_tested, tables(study[study["sae"] == ""]))
    assert [sentence for *_, sentence in no_sae] == ["SAE features were not tested: the study has no SAE."]


def test_a_baseline_that_reads_the_form_better_than_features_is_named(study):
    form = study.copy()
    form.loc[form["family"] == "overlap", "auc"] = 0.999
    form.loc[form["family"].isin(["tfidf", "length"]), "auc"] = 0.4
    [(severity, subject, sentence)] = said(warnings.readable_from_the_form, tables(form))
    assert (severity, subject) == ("warning", "text_overlap")
    assert "word overlap of question and context has AUC 1.00 out of domain, more than the best SAE feature" in sentence


@pytest.mark.parametrize(("area", "warned"), [(0.9, True), (0.5, False)])
def test_a_random_sae_that_transfers_as_well_is_told(study, area, warned):
    also = study.copy()
    real, random = ((also["probe"] == kind) & (also["family"] == "sparse_1") for kind in ("sparse_1", "random_sae"))
    also.loc[real, "auc"], also.loc[random, "auc"] = 0.8, area
    told = said(warnings.random_sae, tables(also))
    assert [subject for _, subject, _ in told] == ["random_sae"] * warned
    if warned:
        assert told[0][2].startswith(
            "An SAE with random weights does as well out of domain: its best feature has AUC 0.90"
        )


def test_a_control_away_from_chance_is_serious(study):
    leak = study.copy()
    rows = (leak["probe"] == "shuffled_labels") & (leak["family"] == "sparse_1")
    leak.loc[rows, ["auc", "auc_low", "auc_high"]] = [0.8, 0.78, 0.82]
    told = said(warnings.leaking_control, tables(leak))
    assert {(severity, subject) for severity, subject, _ in told} == {("serious", "shuffled_labels_sparse_1")}
    assert told[0][2] == "Shuffled labels, 1-sparse: mean AUC 0.80 in domain, not 0.5."


def test_the_worst_stand_first_and_the_table_keeps_them():
    notices = [warnings.Notice("note", "a", "x"), warnings.Notice("serious", "b", "y")]
    found = warnings.frame(warnings.by_severity(notices))
    assert list(found["severity"]) == ["serious", "note"]
    assert list(found.columns) == warnings.TABLE.names
    assert len(warnings.frame([])) == 0


def test_those_of_a_study_are_those_of_its_tables(project):
    read = {name: project.study.table(name) for name in ("transfer", "headline", "health", "datasets")}
    pd.testing.assert_frame_equal(
        warnings.frame(warnings.warnings(read)), project.study.table("warnings"), check_dtype=False
    )
    health, study = read["health"], project.study
    made = study.health(study.saes[0], "people")
    row = health[health["dataset"] == "people"].iloc[0]
    assert (row["width"], row["l0"]) == (made.width, pytest.approx(made.l0, rel=1e-5))
    counted = read["datasets"].set_index("dataset")
    assert dict(counted.loc["passages", ["n_train", "n_test", "prompts"]]) == {
        "n_train": 60,
        "n_test": 40,
        "prompts": 200,
    }
