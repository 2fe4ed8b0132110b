"""A log with planted interests, of items whose titles a person can read, and a control without.

Items belong to a category and, within it, to a product line. A user has 2 to 4 interests, each a
category with a favourite line, and takes from each mostly the favourite line's items, popular ones
first, none twice; the interests' items stand mingled in time. So whoever knows a user's lines does
better than whoever knows the categories, and the categories in a user's history are the interests
that were planted. The control deals the same items out at random: users, lengths, times and
popularity stay, and nothing is left to be found.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.release.atomic_io import atomic_path

_LINES = {
    "Running": ("Trail running shoes", "Road running shoes", "Running belt", "Hydration vest"),
    "Cycling": ("Road bike helmet", "Bib shorts", "Bike light", "Clipless pedals"),
    "Swimming": ("Swim goggles", "Training fins", "Wetsuit", "Pull buoy"),
    "Climbing": ("Climbing shoes", "Climbing harness", "Dynamic rope", "Quickdraw set"),
    "Camping": ("Two-person tent", "Sleeping bag", "Camp stove", "Headlamp"),
    "Fishing": ("Fly rod", "Spinning reel", "Lure box", "Waders"),
    "Yoga": ("Yoga mat", "Cork block", "Meditation cushion", "Yoga leggings"),
    "Football": ("Football boots", "Shin guards", "Match ball", "Goalkeeper gloves"),
    "Coffee": ("Espresso machine", "Burr grinder", "Pour-over dripper", "Coffee beans"),
    "Tea": ("Green tea", "Oolong tea", "Cast-iron teapot", "Herbal infusion"),
    "Baking": ("Stand mixer", "Bread tin", "Piping set", "Sourdough basket"),
    "Kitchen knives": ("Chef's knife", "Paring knife", "Whetstone", "Cutting board"),
    "Gardening": ("Pruning shears", "Raised bed", "Seed collection", "Watering can"),
    "House plants": ("Ceramic planter", "Grow lamp", "Potting mix", "Fern"),
    "Woodworking": ("Hand plane", "Chisel set", "Bar clamp", "Marking gauge"),
    "Painting": ("Watercolour set", "Acrylic paint", "Sable brush", "Stretched canvas"),
    "Knitting": ("Merino yarn", "Circular needles", "Stitch markers", "Pattern book"),
    "Photography": ("Prime lens", "Travel tripod", "Camera bag", "Filter kit"),
    "Guitar": ("Acoustic guitar", "Guitar strings", "Effects pedal", "Clip-on tuner"),
    "Piano": ("Digital piano", "Piano bench", "Sheet music", "Sustain pedal"),
    "Vinyl": ("Turntable", "Phono preamplifier", "Record brush", "Record crate"),
    "Headphones": ("Studio headphones", "Wireless earbuds", "Headphone amplifier", "Ear pads"),
    "Board games": ("Strategy game", "Party game", "Cooperative game", "Card sleeves"),
    "Puzzles": ("Jigsaw puzzle", "Wooden puzzle", "Puzzle cube", "Puzzle table"),
    "Model trains": ("Steam locomotive", "Freight wagon", "Curved track", "Station building"),
    "Astronomy": ("Refractor telescope", "Eyepiece", "Star atlas", "Equatorial mount"),
    "Aquariums": ("Glass aquarium", "Canister filter", "Aquarium plant", "Fish food"),
    "Dogs": ("Dog harness", "Chew toy", "Dog bed", "Training treats"),
    "Cats": ("Scratching post", "Cat fountain", "Wand toy", "Cat carrier"),
    "Crime novels": ("Nordic mystery", "Courtroom thriller", "Cosy mystery", "Spy novel"),
}
_SMALLEST_CATEGORY = 25  # items; fewer categories are used where items are few
_INTERESTS = (2, 4)
_LENGTHS = (6, 14)
_FAVOUR = 30.0  # how much likelier an item of the favourite line is than its equal in another
_SKEW = 0.6  # the popularity of model m of a line goes with m ** -skew
_FIRST_DAY = 1_735_689_600  # 2025-01-01
_DAYS = 120


class _Items(NamedTuple):
    """Fields (N,); categories are positions in names, lines are numbered through all categories."""

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

    The same arguments give the same rows: about 10 a user, as user_id, item_id, timestamp in Unix
    seconds, in order of time over four months; and item_id, title, category. At least 50 items.
    """
    rng = np.random.default_rng(seed)
    stock = _make_items(items, rng)
    histories = [_history(stock, rng) for _ in range(users)]
    who = np.repeat(np.arange(users), [len(history) for history in histories])
    what = np.concatenate(histories)
    when = _moments(who, rng)
    if control:
        what = rng.permutation(what)
    order = np.argsort(when, kind="stable")
    user_ids, item_ids = pa.array([f"user-{u:05d}" for u in range(users)]), pa.array(stock.ids)
    out.mkdir(parents=True, exist_ok=True)
    interactions = {
        "user_id": user_ids.take(pa.array(who[order])),
        "item_id": item_ids.take(pa.array(what[order])),
        "timestamp": when[order],
    }
    categories = [stock.names[category] for category in stock.categories]
    _write(
        {"item_id": item_ids, "title": stock.titles, "category": categories}, out / "items.parquet"
    )
    _write(interactions, out / "interactions.parquet")


def _make_items(count: int, rng: np.random.Generator) -> _Items:
    """Items dealt out over categories, and within them over lines; their ids tell nothing of it."""
    names = list(_LINES)[: max(count // _SMALLEST_CATEGORY, _INTERESTS[1])]
    position = np.arange(count)
    categories = position % len(names)
    line = position // len(names) % 4
    model = position // len(names) // 4 + 1
    titles = [
        f"{_LINES[names[c]][n]}, model {m}" for c, n, m in zip(categories, line, model, strict=True)
    ]
    ids = [f"item-{number:05d}" for number in rng.permutation(count)]
    weights = model.astype(np.float64) ** -_SKEW
    return _Items(ids, titles, names, categories, categories * 4 + line, weights)


def _history(stock: _Items, rng: np.random.Generator) -> NDArray[np.int64]:
    """One user's items, in the order they are met: some from each interest, mingled."""
    many = int(rng.integers(*_INTERESTS, endpoint=True))
    interests = rng.choice(len(stock.names), many, replace=False)
    length = int(rng.integers(*_LENGTHS, endpoint=True))
    beyond = max(length - 2 * many, 0)  # each interest shows at least twice
    shares = 2 + rng.multinomial(beyond, rng.dirichlet(np.full(many, 2.0)))
    taken = [_take(stock, c, n, rng) for c, n in zip(interests, shares, strict=True)]
    return rng.permutation(np.concatenate(taken))


def _take(stock: _Items, category: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Items of a category without repetition, mostly of one line, which is chosen here."""
    shelf = np.flatnonzero(stock.categories == category)
    favourite = category * 4 + rng.integers(4)
    weights = stock.weights[shelf] * np.where(stock.lines[shelf] == favourite, _FAVOUR, 1.0)
    return rng.choice(shelf, min(count, len(shelf)), replace=False, p=weights / weights.sum())


def _moments(who: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A Unix second for each interaction, rising within each user: any day, mostly evenings."""
    day = rng.integers(_DAYS, size=len(who))
    second = rng.normal(19 * 3600, 3 * 3600, size=len(who)).astype(np.int64) % 86_400
    moments = _FIRST_DAY + day * 86_400 + second
    return moments[np.lexsort((moments, who))]


def _write(columns: dict[str, object], path: Path) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)
