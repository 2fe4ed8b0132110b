"""The parts of growth.py whose memory and time are measured, each in a process of its own.

    python tests/evidence/growth_parts.py draft FOLDER ITEMS NORMS
    python tests/evidence/growth_parts.py load RELEASE
    python tests/evidence/growth_parts.py search RELEASE REQUESTS

The last line is one JSON object.
"""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIM, INTERESTS, LENGTH = 64, 8, 20
USERS, REQUESTS, CANARIES = 2000, 100, 8  # as many users as a fit gives `build`
CLUSTERS, CATEGORIES = 2000, 100
K = 50
REQUESTS_FILE = "requests.npy"  # interests of users of whom `build` knows nothing
_BLOCK = 1 << 17  # items


# --- a draft ---


class Population:
    """Clusters of Zipf-skewed sizes, log-normal norms, interests near clusters drawn by size."""

    def __init__(self, norms: float) -> None:
        self._random = np.random.default_rng(0)
        self._norms = norms
        middles = self._random.standard_normal((CLUSTERS, DIM), np.float32)
        self._middles = middles / np.linalg.norm(middles, axis=1, keepdims=True)
        shares = 1 / np.arange(1, CLUSTERS + 1)
        self._shares = shares / shares.sum()

    def clusters(self, items: int) -> NDArray[np.int64]:
        return self._random.choice(CLUSTERS, items, p=self._shares)

    def vectors(self, clusters: NDArray[np.int64]) -> NDArray[np.float32]:
        lengths = self._random.lognormal(0, self._norms, (len(clusters), 1)).astype(np.float32)
        return self._near(clusters, 1.5) * lengths

    def interests(self, users: int) -> NDArray[np.float32]:
        """(users, INTERESTS, DIM), each user's near different clusters."""
        drawn = [
            self._random.choice(CLUSTERS, INTERESTS, replace=False, p=self._shares)
            for _ in range(users)
        ]
        return self._near(np.stack(drawn), 1.0)

    def _near(self, clusters: NDArray[np.int64], spread: float) -> NDArray[np.float32]:
        noise = self._random.standard_normal((*clusters.shape, DIM), np.float32)
        directions = self._middles[clusters] + noise * np.float32(spread / DIM**0.5)
        near: NDArray[np.float32] = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        return near


def write_draft(folder: Path, items: int, norms: float) -> dict[str, object]:
    """A draft as a fit leaves it, of an encoder that was not trained, and fresh requests."""
    import torch

    from index.encoders import build_encoder
    from index.release import manifest as contract
    from index.release.writing import write_tensors

    draft = folder / "root" / contract.DRAFTS / f"items-{items}"
    draft.mkdir(parents=True)
    population = Population(norms)
    clusters = population.clusters(items)
    _write_vectors(draft / contract.VECTORS, population, clusters)
    _write_items(draft / contract.CATALOG, clusters)
    np.save(draft / contract.INTERESTS, population.interests(USERS))
    np.save(folder / REQUESTS_FILE, population.interests(REQUESTS))
    torch.manual_seed(0)
    encoder = build_encoder("re4", {"dim": DIM, "interests": INTERESTS})
    write_tensors(draft / contract.ENCODER, encoder.state_dict())
    names = (contract.VECTORS, contract.CATALOG, contract.INTERESTS, contract.ENCODER)
    contract.write_manifest(
        draft,
        contract.Manifest(
            id=draft.name,
            created=datetime.now(UTC),
            code_version="evidence",
            encoder=contract.EncoderSpec(
                name="re4",
                arguments={"dim": DIM, "interests": INTERESTS},
                history_length=LENGTH,
            ),
            data=contract.DataWindow(
                interactions=10 * items, users=items, items=items, first=0.0, last=1.0
            ),
            training={},
            metrics={"validation": {"recall@50": 0.2}},
            canaries=tuple(contract.Canary(history=history) for history in histories(items)),
            files={name: contract.digest(draft / name) for name in names},
        ),
    )
    return {"draft": str(draft)}


def _write_vectors(path: Path, population: Population, clusters: NDArray[np.int64]) -> None:
    shape = len(clusters) + 1, DIM
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, len(clusters), _BLOCK):
        block = clusters[start : start + _BLOCK]
        vectors[start + 1 : start + 1 + len(block)] = population.vectors(block)
    vectors.flush()


def _write_items(path: Path, clusters: NDArray[np.int64]) -> None:
    from index.release.catalog import write_catalog
    from index.retrieval.catalog import Catalog

    rows = range(1, len(clusters) + 1)
    names = [f"category-{number:02d}" for number in range(CATEGORIES)]
    catalog = Catalog(
        ids=[item_id(row) for row in rows],
        popularity=np.arange(len(clusters), 0, -1),
        categories=[names[cluster % CATEGORIES] for cluster in clusters.tolist()],
        titles=[f"Title of item {row}" for row in rows],
    )
    write_catalog(path, catalog)


def item_id(row: int) -> str:
    return f"item-{row:08d}"


def histories(items: int) -> list[tuple[str, ...]]:
    rows = np.random.default_rng(1).integers(1, items + 1, (CANARIES, LENGTH))
    return [tuple(map(item_id, history)) for history in rows.tolist()]


# --- a release ---


def load(folder: Path) -> dict[str, object]:
    """As the service does, in a process that has loaded nothing before."""
    from service.serving.release_loader import _open_and_warm_up

    start, started = time.perf_counter(), time.process_time()
    _open_and_warm_up(folder, "cpu", "auto")
    return {"load_s": time.perf_counter() - start, "load_cpu_s": time.process_time() - started}


def search(folder: Path, requests_file: Path) -> dict[str, object]:
    """Recall and CPU time, one thread, of requests that `build` did not know."""
    import torch

    from index.ann.ivf import IvfIndex
    from index.release.reading import open_release
    from index.retrieval.merge import merge

    torch.set_num_threads(1)
    index = open_release(folder).retriever.index
    exact = index.exact() if isinstance(index, IvfIndex) else index
    requests = np.load(requests_file)
    seconds = np.full(len(requests), np.inf)
    recalls = np.empty(len(requests))
    for at, request in enumerate(requests):
        for _ in range(3):
            start = time.process_time()
            found = merge(index.search(request[None], K)).rows[0, :K]
            seconds[at] = min(seconds[at], time.process_time() - start)
        recalls[at] = np.isin(merge(exact.search(request[None], K)).rows[0, :K], found).mean()
    return {"us": float(np.median(seconds)) * 1e6, "recall": float(recalls.mean())}


if __name__ == "__main__":
    part, given, *numbers = sys.argv[1:]
    folder = Path(given)
    if part == "draft":
        summary = write_draft(folder, int(numbers[0]), float(numbers[1]))
    elif part == "load":
        summary = load(folder)
    else:
        summary = search(folder, Path(numbers[0]))
    print(json.dumps(summary))
