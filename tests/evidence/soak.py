"""Mixed traffic for a long time, with a release swap every now and then: what grows, what fails.

    python tests/evidence/soak.py [--minutes 60] [--swap-s 60] [--callers 4]

Two releases are served in turn while callers ask by sequence and by user, filtered and explained,
in batches and for similar items, send events, forget users and make mistakes. Every answer must
have its shape and status, and be of one of the two releases. Resident memory, file descriptors
and threads of the server are sampled; how they grow is told by least squares, the first quarter
left out, with the noise about the line. The last line is one JSON object; the exit status is 1 if a
request failed, or, in a minute or more, memory grew by more than a twentieth, or descriptors or
threads by more than two.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from bad_inputs import BAD_INPUTS
from drift import Drift
from releases import CATEGORIES, ITEMS, LENGTH, histories, point, write_release
from server import Server, serving

from service.auth.api_keys import ROLES, key_line, new_key
from service.client import AsyncClient
from service.client.operations import CallError
from service.http.schemas.common import ErrorBody
from service.http.schemas.recommend import Categories, Recommendations, RecommendRequest
from service.store.events import Event

RELEASES = ("odd", "even")
USERS = 500
SAMPLES = 600
GROWN = 0.05
JUDGED_S = 60  # before that, connections are still being opened for the first time
PATIENCE_S = 60.0

Ask = Callable[[], Awaitable[None]]


class Caller:
    """Sends one request after the other, of all kinds, and counts what failed."""

    def __init__(self, server: Server, key: str, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._client = AsyncClient(server.url, key, PATIENCE_S, retries=0)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._raw = httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S)
        self._kinds: dict[Ask, float] = {
            self.sequence: 0.35, self.user: 0.2, self.filtered: 0.1, self.explained: 0.05,
            self.events: 0.1, self.batch: 0.03, self.similar: 0.05, self.history: 0.02,
            self.forget: 0.01, self.withdraw: 0.01, self.bad: 0.08,
        }  # fmt: skip
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()

    async def run(self, until: float) -> None:
        kinds, shares = list(self._kinds), np.array(list(self._kinds.values()))
        while time.monotonic() < until:
            ask = kinds[int(self._random.choice(len(kinds), p=shares / shares.sum()))]
            self.asked[ask.__name__] += 1
            try:
                await ask()
            except (CallError, httpx.TransportError, ValueError) as error:
                self._fail(ask.__name__, error)
        await self._client.close()
        await self._raw.aclose()

    def _fail(self, kind: str, error: Exception) -> None:
        if not self.failed[kind]:
            print(f"{kind}: {type(error).__name__}: {error}", file=sys.stderr)
        self.failed[kind] += 1

    async def sequence(self) -> None:
        await self._recommend(RecommendRequest(sequence=self._history(), k=50))

    async def user(self) -> None:
        await self._recommend(RecommendRequest(user_id=self._user(), k=20))

    async def filtered(self) -> None:
        asked = RecommendRequest(
            sequence=self._history(),
            k=int(self._random.integers(1, 100)),
            exclude=self._history(),
            categories=Categories(deny=[f"category-{self._random.integers(CATEGORIES)}"]),
            diversity=round(float(self._random.random()), 2),
        )
        await self._recommend(asked)

    async def explained(self) -> None:
        asked = RecommendRequest(sequence=self._history(), user_id=self._user(), explain=True)
        await self._recommend(asked)

    async def _recommend(self, asked: RecommendRequest) -> None:
        self._check(asked, await self._client.recommend(asked))

    def _check(self, asked: RecommendRequest, answer: Recommendations | ErrorBody) -> None:
        """Raises ValueError."""
        if isinstance(answer, ErrorBody):
            raise ValueError(answer.error.message)
        self.releases[answer.release] += 1
        if len({item.item_id for item in answer.items}) != len(answer.items) or not answer.items:
            raise ValueError(f"{len(answer.items)} items for {asked}")
        if answer.release not in RELEASES or answer.degraded:
            raise ValueError(f"release {answer.release}, degraded {answer.degraded}")

    async def events(self) -> None:
        events = [
            Event(user_id=self._user(), item_id=self._item())
            for _ in range(int(self._random.integers(1, 20)))
        ]
        await self._client.add(*events)

    async def batch(self) -> None:
        asked = [RecommendRequest(sequence=self._history(), k=10) for _ in range(32)]
        answers = (await self._client.recommend_all(asked)).answers
        for one, answer in zip(asked, answers, strict=True):
            self._check(one, answer)

    async def similar(self) -> None:
        await self._client.similar(self._item(), k=20)

    async def history(self) -> None:
        await self._client.history(self._user())

    async def forget(self) -> None:
        await self._client.forget(self._user())

    async def withdraw(self) -> None:
        item = self._item()
        await self._client.set_available(item, False)
        await self._client.set_available(item, True)

    async def bad(self) -> None:
        bad = BAD_INPUTS[int(self._random.integers(len(BAD_INPUTS)))]
        headers = {name: v.encode("latin-1") for name, v in bad.headers.items() if v is not None}
        response = await self._raw.request(bad.method, bad.path, content=bad.body, headers=headers)
        without_key = bad.headers.get("authorization", "") is None
        if response.status_code != bad.status and not without_key:
            raise ValueError(f"{bad.method} {bad.path[:80]}: {response.status_code}")

    def _user(self) -> str:
        return f"user-{self._random.integers(USERS)}"

    def _item(self) -> str:
        return f"item-{self._random.integers(1, ITEMS + 1)}"

    def _history(self) -> list[str]:
        [history] = histories(self._random, 1)
        return history[:LENGTH]


async def soak(
    root: Path, server: Server, key: str, seconds: float, swap_s: float, callers: int
) -> tuple[list[Caller], Drift, int]:
    """The callers when they are done, what was weighed, and how often the release was swapped."""
    start = time.monotonic()
    drift, made = Drift(server), [Caller(server, key, seed) for seed in range(callers)]
    asking = [asyncio.create_task(caller.run(start + seconds)) for caller in made]
    swaps, due = 0, swap_s
    async with AsyncClient(server.url, key, PATIENCE_S) as client:

        async def is_swapped() -> bool:
            release = (await client.release()).release
            return release is not None and release.id == RELEASES[swaps % 2]

        while not all(task.done() for task in asking):
            passed = time.monotonic() - start
            drift.sample(passed)
            if passed >= due and await is_swapped():
                swaps, due = swaps + 1, passed + swap_s
                point(root, RELEASES[swaps % 2])
            await asyncio.wait(asking, timeout=max(seconds / SAMPLES, 0.1))
        await asyncio.gather(*asking)
        while not await is_swapped():
            await asyncio.sleep(0.01)
    return made, drift, swaps


def measure(root: Path, seconds: float, swap_s: float, callers: int) -> dict[str, Any]:
    for seed, release_id in enumerate(RELEASES):
        write_release(root, release_id, kind=("flat", "ivf")[seed], seed=seed)
    point(root, RELEASES[0])
    key, keys_file = new_key(), root / "keys"
    keys_file.write_text(key_line(key, ROLES) + "\n")
    with serving(root, keys_file=keys_file, reload_interval_s=0.2) as server:
        made, drift, swaps = asyncio.run(soak(root, server, key, seconds, swap_s, callers))
        loaded = sum(line["event"] == "release loaded" for line in server.log)
        alive = server.is_alive
    asked, failed, releases = (
        sum((getattr(caller, name) for caller in made), Counter())
        for name in ("asked", "failed", "releases")
    )
    fields = ("resident_mib", "descriptors", "threads")
    ends = {name: drift.ends(name) for name in fields}
    slopes = {name: drift.slope(name, per=3600) for name in fields}
    resident, hours = ends["resident_mib"][1], 0.75 * seconds / 3600
    memory = slopes["resident_mib"]
    grown = memory.slope * hours / resident if memory else 0.0
    steady = all(ends[name][2] - ends[name][1] <= 2 for name in ("descriptors", "threads"))
    level = seconds < JUDGED_S or (grown < GROWN and steady)
    good = alive and not failed and level and loaded == swaps + 1
    return {
        "evidence": "soak",
        "passed": good,
        "minutes": round(seconds / 60, 2),
        "requests": asked.total(),
        "kinds": dict(asked.most_common()),
        "failed": failed.total(),
        "swaps": swaps,
        "loaded": loaded,
        "answers_by_release": dict(releases),
        "first_settled_last": ends,
        "slope_per_hour": {name: slope and slope.rounded() for name, slope in slopes.items()},
        "memory_grown_share": round(grown, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--swap-s", type=float, default=60)
    parser.add_argument("--callers", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-soak-") as root:
        result = measure(Path(root), given.minutes * 60, given.swap_s, given.callers)
    print(json.dumps(result))
    raise SystemExit(not result["passed"])


if __name__ == "__main__":
    main()
