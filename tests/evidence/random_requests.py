"""Random attributes of items, and random requests with all filters."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from oracle import Oracle, Request, RequestedBoost

from index.retrieval.attribute_filter import AttributeFilter, Condition
from index.retrieval.boosts import Boost
from index.retrieval.details import Value
from index.retrieval.filters import CategoryFilter
from index.retrieval.query import Query
from index.retrieval.rules import Rules

Random = np.random.Generator


def random_attributes(random: Random) -> dict[str, Value]:
    """A number, a boolean, a text and a list, each missing in some items."""
    locales = tuple(name for name in ("de", "at", "ch") if random.random() < 0.4)
    drawn: dict[str, Value] = {
        "price": float(random.integers(0, 100)),
        "stock": bool(random.random() < 0.8),
        "brand": f"brand {random.geometric(0.3)}",
        "locale": locales,
    }
    return {name: value for name, value in drawn.items() if random.random() < 0.9}


def some(random: Random, names: Sequence[str], max_count: int) -> list[str]:
    """Few or many of the names, some perhaps twice, sometimes with an unknown one."""
    count = int(min(random.geometric(1 / random.choice([2, 20, 400])), max_count + 1)) - 1
    chosen = [names[position] for position in random.integers(0, len(names), count)]
    return [*chosen, "unknown"] if random.random() < 0.2 else chosen


def many(random: Random, oracle: Oracle, max_count: int) -> list[str]:
    """Random items, or, in half of the cases, the best items of an answer."""
    if random.random() < 0.5:
        return some(random, oracle.ids, max_count)
    liked = oracle.vectors[random.integers(len(oracle.ids))]
    best = (oracle.vectors @ liked).argsort()[::-1][: int(random.integers(1, max_count + 1))]
    return [oracle.ids[position] for position in best]


def some_conditions(random: Random, share: float) -> list[dict[str, Any]]:
    """None, or, of that share, one to three groups of conditions."""
    if random.random() >= share:
        return []
    return [a_group(random) for _ in range(int(random.integers(1, 4)))]


def a_group(random: Random) -> dict[str, Any]:
    price = float(random.integers(0, 100))
    choices: list[dict[str, Any]] = [
        {"price": {str(random.choice(["lt", "lte", "gt", "gte"])): price}},
        {"price": {"gte": price, "lt": price + 20.0}},
        {"price": {"in": [price, price + 1.0, "brand 1"]}},
        {"price": price},
        {"stock": bool(random.random() < 0.7)},
        {"stock": {"in": [True, 1.0]}},
        {"brand": f"brand {random.geometric(0.3)}"},
        {"brand": {"in": ["brand 1", "brand 3", True, 2.0]}, "stock": True},
        {"locale": {"in": ["de", "at"]}},
        {"locale": "ch", "price": {"lte": price}},
        {"brand": {"lte": price}},
        {"colour": "red"},
    ]
    return choices[int(random.choice([*range(len(choices) - 2)] * 4 + [*range(len(choices))]))]


def some_boosts(random: Random, share: float) -> list[RequestedBoost]:
    """None, or, of that share, one to five: eighths, so that no sum is rounded."""
    if random.random() >= share:
        return []
    adds = [-1.0, -0.25, 0.0, 0.125, 0.25, 0.5, 1.0, 3.0]
    return [
        RequestedBoost(
            some_conditions(random, 0.7), some_conditions(random, 0.3), float(random.choice(adds))
        )
        for _ in range(int(random.integers(1, 6)))
    ]


def some_minimums(random: Random, names: Sequence[str], k: int) -> dict[str, int]:
    """Of a few categories, in sum at most k."""
    minimums: dict[str, int] = {}
    for name in dict.fromkeys(some(random, names, 5)):
        if (left := k - sum(minimums.values())) > 0:
            minimums[name] = int(random.integers(1, min(left, 20) + 1))
    return minimums


def make_request(
    random: Random,
    oracle: Oracle,
    withdrawn: frozenset[str],
    diverse: bool,
    ruled: bool,
    k: int | None = None,
) -> Request:
    """diverse, ruled: whether it may ask for diversity, and for business rules."""
    names = sorted({name for name in oracle.categories if name is not None})
    allowed = random.random() < 0.4
    diverse = diverse and random.random() < 0.4
    k = k or int(min(random.geometric(1 / random.choice([3, 50, 500])), 1000))
    has_minimums = ruled and names and random.random() < 0.3
    minimums = some_minimums(random, names, k) if has_minimums else {}
    left = k - sum(minimums.values())
    return Request(
        sequence=some(random, oracle.ids, 40),
        k=k,
        exclude_seen=bool(random.random() < 0.7),
        exclude=many(random, oracle, 999) if random.random() < 0.6 else [],
        allow=[*some(random, names, 5), "unknown"] if allowed and names else None,
        deny=some(random, names, 5) if random.random() < 0.4 and names else [],
        diversity=float(random.choice([random.random(), random.random() / 10, 1])) * diverse,
        withdrawn=withdrawn,
        every=some_conditions(random, 0.4),
        none=some_conditions(random, 0.2),
        boosts=some_boosts(random, 0.3 * ruled),
        quota=int(random.integers(1, k + 1)) if ruled and random.random() < 0.25 else None,
        minimums=minimums,
        min_new=int(random.integers(0, min(left, 30) + 1))
        if ruled and random.random() < 0.3
        else 0,
    )


def query_of(request: Request) -> Query:
    filtered = request.allow is not None or request.deny
    return Query(
        request.sequence,
        request.k,
        request.exclude_seen,
        request.exclude,
        CategoryFilter(request.allow, request.deny) if filtered else None,
        request.diversity,
        attributes=attribute_filter_of(request) if request.every or request.none else None,
        rules=Rules(
            [Boost(attribute_filter_of(boost), boost.add) for boost in request.boosts],
            request.quota,
            request.minimums,
            request.min_new,
        ),
    )


def attribute_filter_of(given: Request | RequestedBoost) -> AttributeFilter:
    every, none = ([*map(_conditions_of, groups)] for groups in (given.every, given.none))
    return AttributeFilter(every, none)


def _conditions_of(group: Mapping[str, Any]) -> list[Condition]:
    return [
        Condition(name, tuple(given.pop("in")) if "in" in given else None, **given)
        for name, given in (
            (name, dict(value) if isinstance(value, dict) else {"in": [value]})
            for name, value in group.items()
        )
    ]


def batches(random: Random, oracle: Oracle, requests: int, exact: bool) -> Iterator[list[Request]]:
    """Batches of requests with the same withdrawn items."""
    while requests > 0:
        size = int(min(requests, random.integers(1, 17)))
        withdrawn: frozenset[str] = frozenset()
        if random.random() < 0.5:
            # A withdrawn cold-start item is in no delta.
            known = oracle.ids[: oracle.catalog_size]
            withdrawn = frozenset(many(random, oracle, len(oracle.ids))).intersection(known)
        yield [make_request(random, oracle, withdrawn, exact, exact) for _ in range(size)]
        requests -= size
