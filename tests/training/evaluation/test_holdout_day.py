"""The held-out day: how its users and histories are split."""

from training.data.packed_log import prepare
from training.evaluation.holdout_day import day_cases, split_day


def test_the_day_is_not_trained_on(log, since):
    _, packed = prepare(log, 1, 1)
    split = split_day(packed, since)
    assert (split.train.times < since).all()
    assert len(split.train.rows) == 2 * 25


def test_half_of_the_users_validate_and_the_other_half_test(log, since):
    catalog, packed = prepare(log, 1, 1)
    split = split_day(packed, since)
    assert len(split.validation) + len(split.test) == 40
    cases = day_cases(log, since)
    assert len(cases) == len(split.test)
    assert 5 < len(cases) < 35
    assert len(day_cases(log, since, all_users=True)) == 40
    histories = sorted(tuple(catalog.id(row) for row in case.history) for case in split.test)
    assert sorted(tuple(case.history) for case in cases) == histories


def test_the_history_is_all_before_the_day_or_half_of_it_for_a_new_user(log, since):
    cases = {tuple(case.history): case.relevant for case in day_cases(log, since)}
    index = {item: number for number, item in enumerate(log.item_ids)}
    assert cases == {("a", "b"): [index["c"], index["d"]], ("a",): [index["b"], index["e"]]}
