"""A log with planted interests, of items whose titles a person can read, and a control without.

Items belong to a category and, within it, to a product line. A user has 2 to 4 interests; each is a
category with a favourite line. Most items of an interest are of the favourite line, popular ones
first, none twice; the items of all interests are mixed in time. So a model that learns a user's
lines does better than one that learns the categories, and the categories in a history are the
planted interests. The control assigns the same items at random: users, lengths, times and
popularity stay the same, and there is nothing to learn.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.release.atomic_io import atomic_path
from training.data.shop_titles import PRODUCT_LINES, make_title

_MIN_CATEGORY_SIZE = 25  # items; small catalogues have fewer categories
_INTERESTS = (2, 4)
_LENGTHS = (6, 14)
_FAVOURITE_WEIGHT = 30.0  # probability of a favourite line's item over its equal in another line
_POPULARITY_SKEW = 0.6  # model m of a line has popularity m ** -skew
_FIRST_DAY = 1_735_689_600  # 2025-01-01
_DAYS = 120


class _Items(NamedTuple):
    """Fields (N,); categories are indices into names, lines are numbered across all categories."""

    ids: list[str]
    titles: list[str]
    names: list[str]
    categories: NDArray[np.int64]
    lines: NDArray[np.int64]
    weights: NDArray[np.float64]


def write_synthetic(
    out: Path, users: int = 2000, items: int = 1000, seed: int = 0, control: bool = False
) -> None:
    """Write interactions.parquet and items.parquet into the folder `out`.

    interactions: about 10 a user, as user_id, item_id, timestamp in Unix seconds, in order of time
    over four months; items: item_id, title, category. The same arguments give the same rows. At
    least 50 items.
    """
    rng = np.random.default_rng(seed)
    catalog = _make_items(items, rng)
    histories = [_make_history(catalog, rng) for _ in range(users)]
    user_of = np.repeat(np.arange(users), [len(history) for history in histories])
    item_of = np.concatenate(histories)
    times = _make_timestamps(user_of, rng)
    if control:
        item_of = rng.permutation(item_of)
    order = np.argsort(times, kind="stable")
    user_ids, item_ids = pa.array([f"user-{u:05d}" for u in range(users)]), pa.array(catalog.ids)
    out.mkdir(parents=True, exist_ok=True)
    interactions = {
        "user_id": user_ids.take(pa.array(user_of[order])),
        "item_id": item_ids.take(pa.array(item_of[order])),
        "timestamp": times[order],
    }
    categories = [catalog.names[category] for category in catalog.categories]
    _write(
        {"item_id": item_ids, "title": catalog.titles, "category": categories},
        out / "items.parquet",
    )
    _write(interactions, out / "interactions.parquet")


def _make_items(count: int, rng: np.random.Generator) -> _Items:
    """Items spread over categories, and within them over lines; ids are unrelated to either."""
    names = list(PRODUCT_LINES)[: max(count // _MIN_CATEGORY_SIZE, _INTERESTS[1])]
    index = np.arange(count)
    categories = index % len(names)
    line = index // len(names) % 4
    model = index // len(names) // 4 + 1
    titles = [
        make_title(names[c], PRODUCT_LINES[names[c]], int(n), int(m))
        for c, n, m in zip(categories, line, model, strict=True)
    ]
    ids = [f"item-{number:05d}" for number in rng.permutation(count)]
    weights = model.astype(np.float64) ** -_POPULARITY_SKEW
    return _Items(ids, titles, names, categories, categories * 4 + line, weights)


def _make_history(catalog: _Items, rng: np.random.Generator) -> NDArray[np.int64]:
    """One user's items in order of time: some of each interest, mixed."""
    count = int(rng.integers(*_INTERESTS, endpoint=True))
    interests = rng.choice(len(catalog.names), count, replace=False)
    length = int(rng.integers(*_LENGTHS, endpoint=True))
    extra = max(length - 2 * count, 0)  # each interest has at least two items
    sizes = 2 + rng.multinomial(extra, rng.dirichlet(np.full(count, 2.0)))
    samples = [_sample_items(catalog, c, n, rng) for c, n in zip(interests, sizes, strict=True)]
    return rng.permutation(np.concatenate(samples))


def _sample_items(
    catalog: _Items, category: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Distinct items of a category, mostly of one favourite line, which is drawn here."""
    items = np.flatnonzero(catalog.categories == category)
    favourite = category * 4 + rng.integers(4)
    is_favourite = catalog.lines[items] == favourite
    weights = catalog.weights[items] * np.where(is_favourite, _FAVOURITE_WEIGHT, 1.0)
    return rng.choice(items, min(count, len(items)), replace=False, p=weights / weights.sum())


def _make_timestamps(users: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A Unix second for each interaction, rising within each user: any day, mostly evenings."""
    day = rng.integers(_DAYS, size=len(users))
    second = rng.normal(19 * 3600, 3 * 3600, size=len(users)).astype(np.int64) % 86_400
    times = _FIRST_DAY + day * 86_400 + second
    return times[np.lexsort((times, users))]


def _write(columns: dict[str, object], path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
