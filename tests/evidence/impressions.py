"""Pages without repeats and caps that hold, under load.

    python tests/evidence/impressions.py [--requests 100000] [--clients 16] [--items 400]

A server with two workers is asked by clients at once. Some follow cursors: for a user or a
sequence, with pages of any size, with events of the user between two pages, and now and then with
the same cursor again. No page may have an item of those before it, and the pages together must be
all that was allowed. Others ask for few users with a cap each, often several at the same moment,
also page by page, and report what they were shown. No user may be shown an item more often than the
cap says, though the answers go on until nothing is left; then each item was shown just so often.
The last line is one JSON object; the exit status is 1 if anything was amiss.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from releases import point, write_release
from server import serving

WORKERS = 2
MAX_TIMES = 3
_PER_CAPPED_USER = 150  # requests, more than the items last for


@dataclass
class Findings:
    """repeated: items on a page after one of its chain had them. missing: allowed items that were
    on no page of a whole chain. exceeded: items beyond a cap. unused: impressions that a cap would
    have allowed when nothing was left."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    pages: int = 0
    chains: int = 0
    pages_again: int = 0
    repeated: int = 0
    missing: int = 0
    capped_answers: int = 0
    taken_by_others: int = 0
    exhausted_users: int = 0
    exceeded: int = 0
    unused: int = 0
    impressions: set[str] = field(default_factory=set)
    answers: int = 0

    @property
    def passed(self) -> bool:
        return (
            set(self.statuses) == {200}
            and len(self.impressions) == self.answers
            and not (self.repeated or self.missing or self.exceeded or self.unused)
            and min(self.chains, self.pages_again, self.capped_answers, self.exhausted_users) > 0
        )


class Load:
    def __init__(self, client: httpx.AsyncClient, items: int, requests: int) -> None:
        self._client, self._requests = client, requests
        self._catalog = [f"item-{row}" for row in range(1, items + 1)]
        self.findings = Findings()

    @property
    def is_over(self) -> bool:
        return self.findings.requests >= self._requests

    async def pages(self, client: int) -> None:
        """Chains of pages, one after the other."""
        chance = random.Random(client)
        number = 0
        while not self.is_over:
            number += 1
            await self._chain(chance, f"reader-{client}-{number}")

    async def _chain(self, chance: random.Random, user: str) -> None:
        sequence = chance.sample(self._catalog, chance.randint(0, 8))
        asked: dict[str, Any] = {"sequence": sequence, "exclude_seen": False}
        if chance.random() < 0.5:
            asked["user_id"] = user
        denied = chance.sample(self._catalog, chance.randint(0, 5))
        cursor, shown = "start", set[str]()
        while cursor is not None and not self.is_over:
            k = chance.choice([5, 20, 50, 200])
            body = {**asked, "k": k, "exclude": denied, "cursor": cursor}
            answer = await self._answer(body)
            if chance.random() < 0.1:
                self._look(answer, shown)
                answer = await self._answer(body)
                self.findings.pages_again += 1
            shown |= self._look(answer, shown)
            cursor = answer["cursor"]
            if "user_id" in asked and chance.random() < 0.3:
                await self._report([(user, chance.choice(self._catalog), "view", None)])
        if cursor is None:
            self.findings.chains += 1
            self.findings.missing += len({*self._catalog} - {*denied} - shown)

    def _look(self, answer: dict[str, Any], before: set[str]) -> set[str]:
        items = [item["item_id"] for item in answer["items"]]
        self.findings.pages += 1
        self.findings.repeated += len(items) - len({*items} - before)
        return {*items}

    async def capped(self, client: int) -> None:
        """Users, one after the other, each until nothing may be shown any more."""
        chance = random.Random(-client - 1)
        number = 0
        while not self.is_over:
            number += 1
            await self._exhaust(chance, f"shopper-{client}-{number}")

    async def _exhaust(self, chance: random.Random, user: str) -> None:
        times, shown = chance.randint(1, MAX_TIMES), Counter[str]()
        cap = {"times": times, **({"hours": 1000.0} if chance.random() < 0.5 else {})}
        body: dict[str, Any] = {"user_id": user, "exclude_seen": False, "frequency_cap": cap}
        k = len(self._catalog) * times * 2 // _PER_CAPPED_USER + 1
        while not self.is_over:
            together = chance.choice([1, 1, 2, 4])
            asked = [
                {**body, "k": k, **({"cursor": "start"} if chance.random() < 0.2 else {})}
                for _ in range(together)
            ]
            answers = await asyncio.gather(*map(self._answer, asked))
            for answer in answers:
                items = [item["item_id"] for item in answer["items"]]
                shown.update(items)
                self.findings.capped_answers += 1
                self.findings.taken_by_others += together > 1 and len(items) < k
                if items and chance.random() < 0.3:
                    impression = answer["impression_id"]
                    await self._report([(user, item, "impression", impression) for item in items])
            if not any(answer["items"] for answer in answers):
                self.findings.exhausted_users += 1
                self.findings.unused += len(self._catalog) * times - shown.total()
                break
        self.findings.exceeded += sum(count > times for count in shown.values())

    async def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._post("/recommend", body)
        self.findings.answers += 1
        self.findings.impressions.add(answer["impression_id"])
        return answer

    async def _report(self, rows: Sequence[tuple[str, str, str, str | None]]) -> None:
        names = ("user_id", "item_id", "event", "impression_id")
        events = [dict(zip(names, row, strict=True)) for row in rows]
        await self._post("/events", events)

    async def _post(self, path: str, body: Any) -> dict[str, Any]:
        response = await self._client.post(path, json=body)
        self.findings.requests += 1
        self.findings.statuses[response.status_code] += 1
        response.raise_for_status()
        content: dict[str, Any] = response.json()
        assert not content.get("degraded"), content
        return content


async def ask(url: str, items: int, requests: int, clients: int) -> Findings:
    limits = httpx.Limits(max_connections=4 * clients, max_keepalive_connections=4 * clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60.0) as client:
        load = Load(client, items, requests)
        work = [
            load.pages(number) if number % 2 else load.capped(number) for number in range(clients)
        ]
        await asyncio.gather(*work)
    return load.findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--items", type=int, default=400)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="re4-") as folder:
        root = Path(folder)
        write_release(root, "one", items=given.items)
        point(root, "one")
        with serving(root, workers=WORKERS, shown_max_items=given.items) as server:
            start = time.perf_counter()
            found = asyncio.run(ask(server.url, given.items, given.requests, given.clients))
            seconds = time.perf_counter() - start
    summary = {
        name: value
        for name, value in vars(found).items()
        if name not in ("statuses", "impressions")
    }
    summary |= {
        "statuses": {str(status): count for status, count in found.statuses.items()},
        "different_impressions": len(found.impressions),
        "requests_per_s": round(found.requests / seconds),
        "passed": found.passed,
    }
    print(json.dumps(summary))
    return not found.passed


if __name__ == "__main__":
    sys.exit(main())
