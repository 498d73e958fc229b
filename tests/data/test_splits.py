from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import ParamsSection, parse
from sae_transfer.data.example import Example
from sae_transfer.data.overlap import normalised
from sae_transfer.data.splits import Quota, capped, one_per_question, split, subset
from sae_transfer.stats.folds import assign_folds


def row(number, group, question, label):
    return Example(f"f:{number}", group, f"context of {group}", question, label, None, "f")


def made(n_groups=60, seed=0, n_questions=10_000):
    """Rows in groups of 1 to 5 of mixed labels, the questions drawn from a pool."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, n_groups)
    groups = [f"g{group}" for group, size in enumerate(sizes) for _ in range(size)]
    return [row(i, group, f"Q{rng.integers(n_questions)}?", int(rng.integers(2))) for i, group in enumerate(groups)]


def quota(answerable, unanswerable=None):
    return Quota(answerable=answerable, unanswerable=unanswerable or answerable)


def labels(rows):
    return Counter(r.label for r in rows)


def groups(rows):
    return {r.group for r in rows}


def questions(rows):
    return {normalised(r.question) for r in rows}


# quotas


def test_an_even_number_is_half_and_half():
    assert Quota.model_validate(240) == quota(120)
    assert Quota.model_validate({"answerable": 119, "unanswerable": 123}).total == 242


@pytest.mark.parametrize("bad", [0, -2, 7, True, 2.5, {"answerable": 0, "unanswerable": 2}, {"answerable": 3}])
def test_other_quotas_are_refused(bad):
    with pytest.raises(ValidationError):
        Quota.model_validate(bad)


def test_a_bad_quota_in_params_says_what_is_expected():
    class Dataset(ParamsSection):
        n_train: Quota

    with pytest.raises(UserError, match=r"datasets\.a\.n_train = 7: expected an even number above 0"):
        parse(Dataset, {"n_train": 7}, "datasets.a")


# split


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rule", ["repeat", "one_side", "once"])
def test_quotas_are_exact_and_groups_stay_on_one_side(seed, rule):
    rows = made(200, seed, n_questions=400)
    train, test = split(rows, None, quota(40, 60), quota(50), seed, "d", rule)
    assert labels(train) == {1: 40, 0: 60}
    assert labels(test) == {1: 50, 0: 50}
    assert not groups(train) & groups(test)
    assert len({r.id for r in train + test}) == 200
    if rule != "repeat":
        assert not questions(train) & questions(test)
    if rule == "once":
        assert len(questions(train + test)) == 200


def test_a_repeated_question_may_cross_only_where_the_rule_says_so():
    rows = [row(i, f"g{i}", "What is a + b?", i % 2) for i in range(40)]
    train, test = split(rows, None, quota(5), quota(5), 0, "d", "repeat")
    assert questions(train) == questions(test)
    with pytest.raises(UserError, match="n_train needs 5 answerable rows, beside the 10 test rows the data have 0"):
        split(rows, None, quota(5), quota(5), 0, "d", "one_side")


def test_case_and_spaces_do_not_make_another_question():
    rows = [
        row(i, f"g{i}", f"WHO is  {i // 2}?" if i % 2 else f"who is {i // 2} ?".replace(" ?", "?"), i % 2)
        for i in range(40)
    ]
    train, test = split(rows, None, quota(9), quota(9), 0, "d", "one_side")
    assert not questions(train) & questions(test)


def test_the_same_seed_gives_the_same_rows_whatever_the_order_of_groups():
    rows = made(200)
    by_group = sorted(rows, key=lambda r: int(r.group[1:]) % 7)
    assert split(rows, None, quota(50), quota(50), 3, "d") == split(by_group, None, quota(50), quota(50), 3, "d")


@pytest.mark.parametrize(("seed", "name"), [(4, "d"), (3, "e")])
def test_another_seed_or_name_gives_other_rows(seed, name):
    rows = made(200)
    assert split(rows, None, quota(50), quota(50), 3, "d") != split(rows, None, quota(50), quota(50), seed, name)


@pytest.mark.parametrize("rule", ["repeat", "one_side", "once"])
def test_n_train_moves_no_test_row_and_a_smaller_one_is_nested(rule):
    rows = made(300, n_questions=600)
    small, test = split(rows, None, quota(20), quota(50), 0, "d", rule)
    large, same_test = split(rows, None, quota(80), quota(50), 0, "d", rule)
    assert test == same_test
    assert {r.id for r in small} < {r.id for r in large}


def test_every_row_of_a_dataset_can_be_placed():
    """Quotas that use all the rows: no group may be torn, or its rest would be lost to both sides."""
    rows = [row(i, f"g{i // 3}", f"Q{i}", int(i % 3 > 0)) for i in range(90)]  # each group: one 0, two 1
    rows += [row(i, f"g{i}", f"Q{i}", i % 2) for i in range(90, 110)]
    train, test = split(rows, None, quota(35, 20), quota(35, 20), 0, "d")
    assert len(train) + len(test) == len(rows) == 110


def test_chains_of_repeated_questions_are_kept_together():
    """Groups linked by questions a-b, b-c, c-d, ... in chains of four: whole chains go to test, all rows are used."""
    rows = []
    for chain in range(20):
        for link in range(4):
            number = len(rows)
            rows += [
                row(number, f"g{chain}.{link}", f"Q{chain}.{link}", 1),
                row(number + 1, f"g{chain}.{link}", f"Q{chain}.{link + 1}", 0),
            ]
    train, test = split(rows, None, quota(40), quota(40), 0, "d", "one_side")
    assert len(train + test) == len(rows)
    assert not questions(train) & questions(test)


def test_files_of_their_own_stay_apart_and_share_no_group_or_question():
    rows = made(100, 0)
    test_rows = [Example(f"t:{r.id}", r.group, r.context, r.question, r.label, None, "t") for r in rows[:60]]
    train, test = split(rows, test_rows, quota(20), quota(10), 0, "d", "one_side")
    assert {r.source for r in test} == {"t"}
    assert {r.source for r in train} == {"f"}
    assert not groups(train) & groups(test)
    assert not questions(train) & questions(test)


def test_a_quota_that_cannot_be_filled_names_the_largest_that_works():
    rows = [row(i, f"g{i}", f"Q{i}", int(i < 12)) for i in range(40)]
    message = "dataset d: n_test needs 13 answerable rows, the data have 12 answerable and 28 unanswerable; "
    with pytest.raises(UserError, match=message + "the largest balanced n_test is 24"):
        split(rows, None, quota(1), quota(13), 0, "d")
    message = "n_train needs 8 answerable rows, beside the 10 test rows the data have 7 answerable and 23 unanswerable"
    with pytest.raises(UserError, match=message + "; the largest balanced n_train is 14"):
        split(rows, None, quota(8), quota(5), 0, "d")
    train, _ = split(rows, None, quota(7), quota(5), 0, "d")
    assert labels(train) == {1: 7, 0: 7}


# groups and rows that are the same in other letters


def contents(rows):
    return {(normalised(r.context), normalised(r.question)) for r in rows}


SPELLINGS = [
    str.upper,
    str.title,
    lambda text: f"  {text.replace(' ', '   ')}\n",
    lambda text: text.replace("fi", "\ufb01"),
]


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("rule", ["repeat", "one_side", "once"])
def test_the_same_row_in_other_letters_never_stands_on_both_sides(rule, spell):
    """Each row twice, the second in a group of another name and in another spelling."""
    plain = [Example(f"p:{i}", f"g{i}", f"first context {i}", f"find {i}?", i % 2, None, "p") for i in range(100)]
    again = [
        Example(f"q:{i}", f"h{i}", spell(r.context), spell(r.question), r.label, None, "q") for i, r in enumerate(plain)
    ]
    half = 20 if rule == "once" else 45
    for seed in range(5):
        train, test = split([*plain, *again], None, quota(half), quota(half), seed, "d", rule)
        assert not contents(train) & contents(test)
        assert len(train) == len(test) == 2 * half
    train, test = split(plain, again, quota(20), quota(20), 0, "d", rule)
    assert {r.source for r in train} == {"p"}
    assert not contents(train) & contents(test)


@pytest.mark.parametrize("spell", SPELLINGS)
def test_groups_that_are_the_same_in_other_letters_are_one_group(spell):
    rows = [row(i, f"first page {i // 4}", f"Q{i}", i % 2) for i in range(80)]
    rows = [r if i % 4 < 2 else replace(r, group=spell(r.group)) for i, r in enumerate(rows)]
    train, test = split(rows, None, quota(20), quota(20), 0, "d")
    assert not {normalised(group) for group in groups(train)} & {normalised(group) for group in groups(test)}
    assert len(groups([*train, *test])) == 20  # so that folds and the bootstrap keep them together too
    assert split(rows[::-1], None, quota(20), quota(20), 0, "d")[1][0].group == test[0].group  # whatever the order


def test_groups_that_differ_keep_their_names():
    rows = made(200)
    taken = [*split(rows, None, quota(50), quota(50), 3, "d")]
    by_id = {r.id: r for r in rows}
    assert all(r is by_id[r.id] for part in taken for r in part)


# one row a question


@pytest.mark.parametrize(
    ("only_answerable", "only_unanswerable", "both", "expected"),
    [(10, 0, 10, (10, 10)), (10, 0, 20, (15, 15)), (3, 9, 4, (7, 9)), (0, 0, 11, (6, 5)), (20, 0, 5, (20, 5))],
)
def test_the_label_kept_balances_the_whole(only_answerable, only_unanswerable, both, expected):
    names = [("a", 1)] * only_answerable + [("u", 0)] * only_unanswerable
    rows = [row(i, f"g{i}", f"{kind}{i}?", label) for i, (kind, label) in enumerate(names)]
    for i in range(both):
        rows += [row(f"{i}y", f"y{i}", f"Both {i}?", 1), row(f"{i}n", f"n{i}", f"both  {i}?", 0)]
    kept = one_per_question(rows, 0, "d")
    assert (labels(kept)[1], labels(kept)[0]) == expected
    assert len(questions(kept)) == len(kept) == sum(expected)


def test_the_seed_decides_which_questions_are_kept_under_which_label():
    rows = [row(f"{i}{label}", f"g{i}{label}", f"Q{i}", label) for i in range(50) for label in (0, 1)]
    assert one_per_question(rows, 0, "d") == one_per_question(rows, 0, "d")
    assert one_per_question(rows, 0, "d") != one_per_question(rows, 1, "d")


# subset


def test_subsets_are_balanced_nested_and_in_order():
    y = np.random.default_rng(0).integers(0, 2, 100)
    large, small = subset(y, 60), subset(y, 20)
    assert np.sum(y[large] == 1) == np.sum(y[large] == 0) == 30
    assert set(small) < set(large)
    assert np.all(np.diff(large) > 0)
    assert subset([1, 1, 1, 0, 0, 1, 0], 4).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("n", [0, -2, 3, 6])
def test_a_subset_that_cannot_balance_is_refused(n):
    with pytest.raises(UserError, match=f"a matched n of {n} rows: expected an even number from 2 to 4"):
        subset([1, 0, 1, 0, 1], n)


# folds


def test_folds_hold_both_labels_and_no_group_twice():
    rows = made(80)
    y = np.array([r.label for r in rows])
    fold = assign_folds(y, [r.group for r in rows], 5, 0)
    assert set(fold) == set(range(5))
    for number in range(5):
        assert 0.25 < y[fold == number].mean() < 0.75
    for group in groups(rows):
        assert len({f for f, r in zip(fold, rows, strict=True) if r.group == group}) == 1


def test_the_seed_decides_the_folds():
    y, names = np.tile([0, 1], 50), [f"g{i}" for i in range(100)]
    assert np.array_equal(assign_folds(y, names, 5, 1), assign_folds(y, names, 5, 1))
    assert not np.array_equal(assign_folds(y, names, 5, 1), assign_folds(y, names, 5, 2))


def test_too_few_groups_for_the_folds_says_how_many_there_are():
    y, names = [0, 1] * 6, [f"g{i // 4}" for i in range(12)]
    message = r"5 folds .* need 5 groups of each label, found 12 rows in 3 groups \(3 answerable and 3 unanswerable\)"
    with pytest.raises(UserError, match=message):
        assign_folds(y, names, 5, 0)


def test_a_label_in_too_few_groups_is_refused():
    with pytest.raises(UserError, match=r"2 unanswerable.*raise n_train or lower folds"):
        assign_folds([1] * 20 + [0, 0], [f"g{i}" for i in range(22)], 3, 0)


def test_a_fold_with_one_label_is_refused():
    labels = [1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0]
    groups = ["mixed"] * 5 + ["pure"] * 4 + ["other mixed"] * 3  # dealt to folds 0, 1 and 0
    with pytest.raises(UserError, match="one of 2 folds by group has a single label"):
        assign_folds(labels, groups, 2, 0)


def test_groups_of_one_label_and_many_sizes_spread_over_the_folds():
    labels = np.repeat([1, 0] * 10, np.arange(20, 0, -1))  # in order of size the labels alternate
    groups = np.repeat([f"g{i}" for i in range(20)], np.arange(20, 0, -1))
    fold = assign_folds(labels, list(groups), 2, 0)
    assert abs(labels[fold == 0].mean() - labels[fold == 1].mean()) < 0.1


# at most so many rows of a group


def test_a_group_gives_at_most_so_many_rows_of_its_labels_in_turn():
    many = made(40)
    found = capped(many, 3, 0, "d")
    sizes, had = Counter(r.group for r in found), Counter(r.group for r in many)
    assert sizes == {group: min(n, 3) for group, n in had.items()}
    mixed = {group for group in groups(many) if len(labels(r for r in many if r.group == group)) == 2}
    assert all(len(labels(r for r in found if r.group == group)) == 2 for group in mixed)
    assert found == [r for r in many if r in found]
    assert capped(many, 3, 1, "d") != found
    assert capped(many, 99, 0, "d") == many


def test_a_capped_split_has_more_groups_for_as_many_rows():
    many = [row(10 * i + k, f"g{i}", f"Q{i}.{k}?", k % 2) for i in range(40) for k in range(10)]
    for most, n_groups in ((None, 4), (2, 20)):
        train, test = split(many, None, quota(20), quota(20), 0, "d", max_per_group=most)
        assert (len(groups(train)), len(groups(test))) == (n_groups, n_groups)
        assert not groups(train) & groups(test)
        assert labels(train) == labels(test) == {0: 20, 1: 20}
    with pytest.raises(UserError, match="n_test needs 41 answerable rows, the data have 40 answerable and 40"):
        split(many, None, quota(20), quota(41), 0, "d", max_per_group=2)
