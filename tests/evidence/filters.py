"""Random requests with all filters and business rules, against a brute-force oracle.

    python tests/evidence/filters.py [--requests 10000] [--items 60000] [--seed 0] [--kernel auto]

On flat indexes, over catalogues of 1 to 10,000 items, most of them with cold-start items beside
them, of which some are in histories. Seven in eight catalogues have vectors of
small integers, whose products are exact and often tie: there the answer must equal the oracle's,
ties included. The others have Re4 and real vectors, without diversity and rules: there the score at
each position must equal the oracle's up to rounding.

Then a tenth as many requests to a release of --items items with an IVF index by `build`: its recall
under filters and rules must reach the recall that the release states. --items 0 skips this. The
last line is one JSON object; the exit code is 1 if anything fails.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # for its release of random items

import numpy as np
import torch
from load_data import make_release, sequences
from numpy.typing import NDArray
from oracle import Expected, Oracle, Request
from random_requests import Random, batches, make_request, many, query_of, random_attributes

from index.ann.build import build_index
from index.ann.kernel_choice import AUTO, find_kernel
from index.ann.spec import IndexSpec
from index.encoders import Encoder, History, Interests, build_encoder
from index.release.manifest import RELEASES
from index.release.reading import open_release, read_current
from index.retrieval.attributes import columns_of
from index.retrieval.catalog import Catalog
from index.retrieval.delta import Delta
from index.retrieval.details import Details, Value
from index.retrieval.query import Answer
from index.retrieval.retriever import Retriever

SIZES = (1, 7, 40, 300, 1000, 3000, 5000, 10_000)
REQUESTS_A_WORLD = 20
LENGTH = 6
TOLERANCE = 1e-4  # of the largest score
CATEGORIES_OF_A_RELEASE = 50


class Newest(Encoder):
    """Interests are the vectors of the newest items, so that nothing is rounded."""

    def __init__(self, dim: int, interests: int) -> None:
        super().__init__()
        self.dim, self.interests = dim, interests

    def forward(self, history: History) -> Interests:
        positions = torch.arange(1, self.interests + 1)
        positions = torch.minimum(positions, history.mask.sum(dim=1, keepdim=True))
        positions = history.mask.shape[1] - positions
        pairs = zip(history.vectors, positions, strict=True)
        vectors = torch.stack([line[newest] for line, newest in pairs])
        attention = torch.nn.functional.one_hot(positions, history.mask.shape[1]).float()
        return Interests(vectors, attention, vectors)


@dataclass(frozen=True)
class World:
    retriever: Retriever
    delta: Delta | None
    oracle: Oracle
    exact: bool

    def interests(self, sequence: Sequence[str]) -> NDArray[np.float64]:
        """Interests (K, D) by numpy alone."""
        position_of = {item: position for position, item in enumerate(self.oracle.ids)}
        positions = [position_of[item] for item in sequence if item in position_of][-LENGTH:]
        vectors = self.oracle.vectors[positions]
        encoder = self.retriever.encoder
        if not positions:
            return np.zeros((encoder.interests, encoder.dim))
        if self.exact:
            newest = vectors[::-1]
            return newest[np.minimum(np.arange(encoder.interests), len(newest) - 1)]
        weights = {name: w.numpy().astype(np.float64) for name, w in encoder.state_dict().items()}
        logits = weights["score.weight"] @ np.tanh(weights["project.weight"] @ vectors.T)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return (shares @ vectors) @ weights["value.weight"].T


def make_world(random: Random, exact: bool, kernel: str = AUTO) -> World:
    """With cold-start items in two of three worlds."""
    items, dim, interests = int(random.choice(SIZES)), int(random.choice([2, 8, 32])), 4
    new = int(random.choice([0, min(items, 20), min(items, 300)]))
    total = items + new
    if exact:
        vectors = random.integers(-3, 4, (total + 1, dim)).astype(np.float32)
        encoder: Encoder = Newest(dim, interests)
    else:
        vectors = random.standard_normal((total + 1, dim)).astype(np.float32)
        torch.manual_seed(int(random.integers(2**31)))
        encoder = build_encoder("re4", {"dim": dim, "interests": interests}).eval()
    vectors[0] = 0
    names = [None, *(f"category {number}" for number in range(int(random.integers(1, 12))))]
    if random.random() < 0.5:  # neighbours share a category
        kinds = (vectors[1:] @ random.standard_normal((dim, len(names)))).argmax(axis=1)
    else:
        kinds = random.integers(0, len(names), total)
    if random.random() < 0.5:  # new items have categories of their own too
        names = [*names, "category new"]
        kinds[items:][random.random(new) < 0.3] = len(names) - 1
    attributes = [random_attributes(random) for _ in range(total)]
    catalog = Catalog(
        ids=[f"item {number}/é" for number in random.permutation(items)],
        popularity=np.sort(random.integers(0, 50, items))[::-1],
        categories=[names[kind] for kind in kinds[:items]],
        titles=[None] * items,
        attributes=columns_of(attributes[:items]),
    )
    new_names = [names[kind] for kind in kinds[items:]]
    delta = delta_of(vectors[items + 1 :], new_names, attributes[items:])
    index = build_index(vectors[: items + 1], IndexSpec(), kernel=find_kernel(kernel))
    return World(
        Retriever(catalog, encoder, vectors[: items + 1], index, LENGTH),
        delta,
        oracle_of(catalog, vectors, attributes, delta),
        exact,
    )


def delta_of(
    vectors: NDArray[np.float32],
    categories: Sequence[str | None],
    attributes: Sequence[dict[str, Value]],
) -> Delta | None:
    ids = [f"new {number}/é" for number in range(len(vectors))]
    details = {
        item: Details(None, None if name is None else [name], values)
        for item, name, values in zip(ids, categories, attributes, strict=True)
    }
    return Delta(ids, vectors, details) if ids else None


def oracle_of(
    catalog: Catalog,
    vectors: NDArray[np.float32],
    attributes: Sequence[dict[str, Value]],
    delta: Delta | None = None,
) -> Oracle:
    new = [] if delta is None else delta.ids
    return Oracle(
        [*catalog.ids, *new],
        [*catalog.popularity.tolist(), *(0 for _ in new)],
        [*catalog.categories, *([] if delta is None else delta.first_categories)],
        vectors[1:].astype(np.float64),
        attributes,
        len(catalog),
    )


def ask(retriever: Retriever, batch: Sequence[Request], delta: Delta | None = None) -> list[Answer]:
    withdrawn = frozenset(retriever.catalog.rows(batch[0].withdrawn))
    return retriever.recommend([query_of(request) for request in batch], None, withdrawn, delta)


# --- verdicts ---


def difference(world: World, request: Request, answer: Answer) -> str:
    """The problem with the answer; empty if it equals the oracle's."""
    expected = world.oracle.answer(request, world.interests(request.sequence))
    items = [world.oracle.ids[row - 1] for row in answer.rows.tolist()]
    if (answer.source, answer.unknown) != (expected.source, expected.unknown):
        return "source or unknown items"
    if len(items) != len(expected.items) or len(set(items)) != len(items):
        return "length"
    if world.exact or answer.source == "popular":
        same = (items, answer.scores.tolist()) == (expected.items, expected.scores)
        found_by = answer.interests.tolist()
        if not same or (answer.source == "interests" and found_by != expected.interests):
            return "items, scores or interests"
        same = answer.boosts is None or answer.boosts.tolist() == expected.boosts
        return "" if same else "boosts"
    return "" if as_good(world, request, items, answer, expected) else "worse than the oracle's"


def as_good(
    world: World, request: Request, items: list[str], answer: Answer, expected: Expected
) -> bool:
    """Whether all items are allowed, and the score at each position is the oracle's."""
    full_ranking = world.oracle.answer(
        replace(request, k=len(world.oracle.ids)), world.interests(request.sequence)
    )
    true = dict(zip(full_ranking.items, full_ranking.scores, strict=True))
    if not true.keys() >= set(items):
        return False
    tolerance = TOLERANCE * (1 + max(map(abs, full_ranking.scores), default=0))
    actual = np.array([true[item] for item in items])
    correct = np.array(expected.scores)
    near = np.abs(actual - correct) <= tolerance
    return bool(near.all() and (np.abs(answer.scores - actual) <= tolerance).all())


def on_flat(random: Random, requests: int, kernel: str) -> dict[str, int]:
    counts = dict.fromkeys(
        (
            "identical",
            "as_good",
            "wrong",
            "filtered",
            "by_attribute",
            "boosted",
            "with_quota",
            "with_minimums",
            "with_places_for_new",
            "diverse",
            "popular",
            "short",
            "with_new_items",
        ),
        0,
    )
    done = worlds = 0
    while done < requests:
        exact, worlds = worlds % 8 > 0, worlds + 1
        world = make_world(random, exact, kernel)
        for batch in batches(random, world.oracle, min(requests - done, REQUESTS_A_WORLD), exact):
            answers = ask(world.retriever, batch, world.delta)
            for request, answer in zip(batch, answers, strict=True):
                problem = difference(world, request, answer)
                if problem:
                    print(f"{problem}: {request} answered with {answer}", file=sys.stderr)
                counts["wrong" if problem else "identical" if exact else "as_good"] += 1
                counts["by_attribute"] += bool(request.every or request.none)
                counts["boosted"] += bool(request.boosts)
                counts["with_quota"] += request.quota is not None
                counts["with_minimums"] += bool(request.minimums)
                counts["with_places_for_new"] += bool(request.min_new and world.delta)
                counts["filtered"] += bool(request.deny or request.allow is not None)
                counts["diverse"] += request.diversity > 0
                counts["popular"] += answer.source == "popular"
                counts["short"] += len(answer.rows) < request.k
                counts["with_new_items"] += bool((answer.rows > world.oracle.catalog_size).any())
            done += len(batch)
    return counts


def on_lists(
    random: Random, requests: int, items: int, kernel: str
) -> dict[str, float | int | str]:
    """Mean recall under filters, and the recall that the release states."""
    with tempfile.TemporaryDirectory() as folder:
        make_release(Path(folder), items)
        folder_of_release = Path(folder) / RELEASES / str(read_current(Path(folder)))
        release = open_release(folder_of_release, kernel=kernel)
    measured, given = release.manifest.index, release.retriever
    assert measured is not None, "a release has an index; this is a bug"
    # Neighbours mostly share a category.
    planes = random.standard_normal((given.vectors.shape[1], CATEGORIES_OF_A_RELEASE))
    nearest = (given.vectors[1:] @ planes).argmax(axis=1)
    attributes = [random_attributes(random) for _ in range(items)]
    catalog = replace(
        given.catalog,
        categories=[f"category {n}" for n in nearest],
        attributes=columns_of(attributes),
    )
    retriever = replace(given, catalog=catalog)
    oracle = oracle_of(catalog, given.vectors, attributes)
    histories = sequences(items, requests)
    recalls = []
    for history in histories:
        withdrawn = many(random, oracle, items // 10) if random.random() < 0.5 else []
        left_out = frozenset(withdrawn) - {"unknown"}
        drawn = make_request(random, oracle, left_out, diverse=False, ruled=True, k=measured.k)
        request = replace(drawn, sequence=history)
        [answer] = ask(retriever, [request])
        rows = retriever.catalog.rows(history)
        expected = oracle.answer(request, retriever.encode([rows])[0].astype(np.float64))
        if expected.items:
            found = {oracle.ids[row - 1] for row in answer.rows.tolist()}
            recalls.append(len(found & set(expected.items)) / len(expected.items))
    return {
        "kind": measured.spec.kind,
        "searched_by": release.search.kind,
        "requests": len(recalls),
        "recall": float(np.mean(recalls)),
        "recall_of_release": measured.recall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=60_000, help="of the release; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kernel", default=AUTO, help="auto, or the name of one")
    given = parser.parse_args()
    start = time.perf_counter()
    random = np.random.default_rng(given.seed)
    flat = on_flat(random, given.requests, given.kernel)
    lists = {}
    if given.items:
        lists = on_lists(random, given.requests // 10, given.items, given.kernel)
    passed = flat["wrong"] == 0 and lists.get("recall", 1) >= lists.get("recall_of_release", 0)
    summary = {
        "evidence": "filters",
        "passed": passed,
        "requests": given.requests,
        "flat": flat,
        "lists": lists,
        "seed": given.seed,
        "kernel": find_kernel(given.kernel).name,
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(summary))
    sys.exit(not passed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
