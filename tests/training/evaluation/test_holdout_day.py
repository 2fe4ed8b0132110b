"""The held-out day: how its users and histories are split."""

from dataclasses import replace

import numpy as np

from training.data.event_weights import EventWeights
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


def test_what_has_weight_0_is_in_histories_and_not_to_be_found(log, since):
    """Of the day's items, c of users with a history; of new users everything."""
    items = log.item_ids[log.items]
    old = np.isin(log.users, log.users[log.times < since])
    codes = ((items == "c") | ~old).astype(np.int32)
    types = np.array(["buy", "view"], dtype=object)
    weighted = replace(log, events=EventWeights.of(codes, types, {"view": 0.0}))
    index = {item: number for number, item in enumerate(log.item_ids)}
    cases = day_cases(weighted, since, all_users=True)
    assert {tuple(case.history): case.relevant for case in cases} == {("a", "b"): [index["d"]]}
    assert 0 < len(cases) < len(day_cases(log, since, all_users=True))
    catalog, packed = prepare(weighted, 1, 1)
    split = split_day(packed, since)
    found = {row for case in (*split.validation, *split.test) for row in case.relevant}
    assert {catalog.id(row) for row in found} == {"d"}
    assert len(split.validation) + len(split.test) == len(cases)
