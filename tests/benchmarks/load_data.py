"""A release of random items to put load on, and the histories that ask it for candidates.

Vectors lie in clusters of Zipf's sizes, with log-normal norms; users care for a few clusters each.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from index.encoders import Encoder, History, build_encoder
from index.release.build import build
from index.release.manifest import (
    DRAFTS,
    RELEASES,
    DataWindow,
    EncoderSpec,
    Manifest,
    write_manifest,
)
from index.release.publish import publish, rollback
from index.release.reading import read_current
from index.release.writing import write_parts
from index.retrieval.catalog import Catalog

DIM, INTERESTS, HISTORY = 64, 8, 20
CLUSTERS = 2000

Histories = NDArray[np.int64]


def make_release(root: Path, items: int) -> None:
    """Have a release of random items be live, which is built unless the root has one of as many."""
    release_id = f"random-{items}"
    if (root / RELEASES / release_id).exists():
        if read_current(root) != release_id:
            rollback(root, to=release_id)
        return
    draft = root / DRAFTS / release_id
    generator = np.random.default_rng(0)
    vectors, cluster = make_vectors(generator, items)
    encoder = make_encoder()
    interests = encode(encoder, vectors, make_histories(generator, cluster, 1000))
    files = write_parts(draft, encoder, vectors, make_catalog(items), interests)
    manifest = Manifest(
        id=release_id,
        created=datetime.now(UTC),
        code_version="benchmark",
        encoder=EncoderSpec(
            name="re4", arguments={"dim": DIM, "interests": INTERESTS}, history_length=HISTORY
        ),
        data=DataWindow(interactions=items, users=1, items=items, first=0, last=1),
        training={},
        metrics={},
        files=dict(files),
    )
    write_manifest(draft, manifest)
    build(draft, progress=lambda said: print(said, file=sys.stderr))
    publish(draft, force=True)


def make_vectors(
    generator: np.random.Generator, items: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors (items + 1, D), row 0 zero, and the cluster of each."""
    centres = _directions(generator.standard_normal((CLUSTERS, DIM)))
    cluster = generator.choice(CLUSTERS, items + 1, p=_SHARES)
    noise = generator.standard_normal((items + 1, DIM)) * 1.5 / DIM**0.5
    vectors = _directions(centres[cluster] + noise)
    vectors *= generator.lognormal(0, 0.4, (items + 1, 1))
    vectors[0] = 0
    return vectors.astype(np.float32), cluster


_SHARES = 1 / np.arange(1, CLUSTERS + 1) / np.sum(1 / np.arange(1, CLUSTERS + 1))


def _directions(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_histories(
    generator: np.random.Generator, cluster: NDArray[np.int64], users: int
) -> Histories:
    """Rows (users, HISTORY) of users who care for a few clusters each."""
    members = np.argsort(cluster[1:], kind="stable") + 1
    starts = np.searchsorted(cluster[members], np.arange(CLUSTERS))
    ends = np.append(starts[1:], len(members))
    liked = generator.choice(CLUSTERS, (users, INTERESTS), p=_SHARES)
    chosen = np.take_along_axis(liked, generator.integers(0, INTERESTS, (users, HISTORY)), axis=1)
    sizes = np.maximum(ends - starts, 1)
    places = starts[chosen] + generator.integers(0, 1 << 30, chosen.shape) % sizes[chosen]
    return members[places % len(members)]  # the first one's for a last cluster that has no items


def make_encoder() -> Encoder:
    """Untrained weights, but such that the interests of a user differ as trained ones do."""
    torch.manual_seed(0)
    encoder = build_encoder("re4", {"dim": DIM, "interests": INTERESTS})
    weights = encoder.state_dict()
    weights["value.weight"].copy_(torch.eye(DIM))
    weights["score.weight"].mul_(30)
    return encoder.eval().requires_grad_(False)


def encode(
    encoder: Encoder, vectors: NDArray[np.float32], histories: Histories
) -> NDArray[np.float32]:
    rows = torch.from_numpy(histories)
    result: NDArray[np.float32] = encoder(
        History(rows, torch.from_numpy(vectors[histories]), rows > 0)
    ).vectors.numpy()
    return result


def make_catalog(items: int) -> Catalog:
    return Catalog(
        ids=[f"item-{row}" for row in range(1, items + 1)],
        popularity=np.arange(items, 0, -1),
        categories=[None] * items,
        titles=[f"Title of item {row}" for row in range(1, items + 1)],
    )


def sequences(items: int, users: int) -> list[list[str]]:
    """Histories as clients post them; other users than those that the index was tuned on."""
    generator = np.random.default_rng(0)
    _, cluster = make_vectors(generator, items)
    histories = make_histories(np.random.default_rng(1), cluster, users)
    return [[f"item-{row}" for row in history] for history in histories.tolist()]
