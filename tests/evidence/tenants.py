"""Several shops in one service, under load: does any of them ever see what is another's?

    python tests/evidence/tenants.py [--requests 100000] [--shops 5] [--connections 24]
                                     [--workers 2]

Each shop has a release with items of its own, a key of its own, and the same users as all others.
Connections ask for everything at once: answers by user and by sequence, also by items of another
shop; events, histories, forgetting; withdrawing and announcing; with the key of another shop too.
What is stored is known, as a connection has its users, and its items to withdraw, to itself. Every
answer is held against it: it has the shop's items, release and histories and nothing else. In the
end so are the withdrawn items, and the requests that the metrics count by shop. The last line is
one JSON object; the exit status is 1 if anything leaked or failed.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson
from prometheus_client.parser import text_string_to_metric_families
from releases import ITEMS, point, write_release
from server import Server, serving

from service.auth.api_keys import Role, key_line, new_key

ROLES: list[Role] = ["read", "events", "catalog", "erase"]
ACTIONS = {
    "recommend": 30, "posted": 15, "foreign items": 5, "event": 20, "history": 10, "forget": 2,
    "withdraw": 3, "announce": 3, "similar": 5, "release": 3, "wrong key": 4,
}  # fmt: skip
MAX_HISTORY = 20  # a model's, which forgets before the service would cut
SETTLED_S = 3.0  # until every worker has added up its counts


@dataclass
class Shop:
    """histories: by user; withdrawn: both as they have to be."""

    name: str
    key: str
    histories: dict[str, list[str]] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    def item(self, number: int) -> str:
        return f"{self.name}-{number}"


@dataclass
class Tally:
    requests: Counter[str] = field(default_factory=Counter)  # by shop
    statuses: Counter[int] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Shopper:
    """One connection. number: its users, and the items that it withdraws, are told apart by it."""

    def __init__(
        self, number: int, connections: int, shops: list[Shop], client: httpx.AsyncClient
    ) -> None:
        self._random = Random(number)
        self._number, self._connections = number, connections
        self._shops, self._client = shops, client

    async def ask(self, tally: Tally) -> None:
        draw = self._random
        shop = draw.choice(self._shops)
        [action] = draw.choices([*ACTIONS], [*ACTIONS.values()])
        user = f"user-{self._number}-{draw.randrange(4)}"
        history = shop.histories.get(user, [])
        if action == "event" and len(history) >= MAX_HISTORY:
            action = "forget"
        method, path, body, key = self._request(action, shop, user)
        headers = {"authorization": f"Bearer {key}"}
        answer = await self._client.request(
            method, f"/t/{shop.name}{path}", json=body, headers=headers
        )
        tally.requests[shop.name] += 1
        tally.statuses[answer.status_code] += 1
        tally.actions[action] += 1
        expected = 401 if action == "wrong key" else 200
        if answer.status_code != expected:
            tally.failures.append(f"{action}: {answer.status_code} {answer.text[:200]}")
            return
        self._note(action, shop, user, path.rpartition("/")[2], body)
        content = orjson.loads(answer.content)
        if problem := self._problem(action, shop, user, content):
            tally.leaks.append(f"{action} of {shop.name}: {problem}")

    def _request(
        self, action: str, shop: Shop, user: str
    ) -> tuple[str, str, dict[str, Any] | None, str]:
        draw, key = self._random, shop.key
        other = draw.choice([each for each in self._shops if each is not shop])
        own = [shop.item(draw.randrange(1, ITEMS + 1)) for _ in range(3)]
        # Of all items, those that this connection alone withdraws.
        mine = shop.item(1 + self._number + self._connections * draw.randrange(3))
        match action:
            case "event":
                return "POST", "/events", {"user_id": user, "item_id": own[0]}, key
            case "history":
                return "GET", f"/users/{user}/history", None, key
            case "forget":
                return "DELETE", f"/users/{user}/history", None, key
            case "withdraw" | "announce":
                return "PUT", f"/items/{mine}", {"available": action == "announce"}, key
            case "similar":
                return "GET", f"/items/{own[0]}/similar?k=20", None, key
            case "release":
                return "GET", "/release", None, key
        posted = {"sequence": own, "k": 20}
        if action == "foreign items":
            posted = {"sequence": [other.item(draw.randrange(1, ITEMS + 1))], "k": 20}
        elif action != "posted":
            posted = {"user_id": user, "k": 20}
        return "POST", "/recommend", posted, other.key if action == "wrong key" else key

    def _note(
        self, action: str, shop: Shop, user: str, item: str, body: dict[str, Any] | None
    ) -> None:
        """What the shop has stored now. item: the last part of the path."""
        if action == "event":
            assert body is not None
            history = shop.histories.setdefault(user, [])
            if history[-1:] != [body["item_id"]]:  # repeats are folded
                history.append(body["item_id"])
        elif action == "forget":
            shop.histories.pop(user, None)
        elif action == "withdraw":
            shop.withdrawn.add(item)
        elif action == "announce":
            shop.withdrawn.discard(item)

    def _problem(self, action: str, shop: Shop, user: str, content: Any) -> str | None:
        """What is wrong with the answer, if anything is."""
        history = shop.histories.get(user, [])
        if action == "history":
            if content["items"] != history:
                return f"{content['items']} in place of {history}"
        elif action == "release":
            if content["release"]["id"] != shop.name:
                return f"release {content['release']['id']}"
        elif action in ("recommend", "posted", "foreign items", "similar"):
            if content["release"] != shop.name:
                return f"release {content['release']}"
            ids = [item["item_id"] for item in content["items"]]
            if foreign := [item for item in ids if not item.startswith(f"{shop.name}-")]:
                return f"items {foreign[:3]}"
            has_history = history if action == "recommend" else action == "posted"
            if action != "similar" and (content["source"] == "interests") != bool(has_history):
                return f"source {content['source']} with the history {history}"
        return None


async def load(server: Server, shops: list[Shop], requests: int, connections: int) -> Tally:
    tally, left = Tally(), iter(range(requests))

    async def shop_for_ever(number: int) -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            shopper = Shopper(number, connections, shops, client)
            for _ in left:
                await shopper.ask(tally)

    await asyncio.gather(*map(shop_for_ever, range(connections)))
    return tally


def check_afterwards(server: Server, shops: list[Shop], tally: Tally, operator: str) -> None:
    """Histories one by one, withdrawn items, and the counts of the metrics."""
    time.sleep(SETTLED_S)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        headers = {"authorization": f"Bearer {operator}"}
        counted = counts(client.get("/metrics", headers=headers).text)
        if counted != dict(tally.requests):
            tally.leaks.append(f"metrics count {counted}, asked were {dict(tally.requests)}")
        for shop in shops:
            headers = {"authorization": f"Bearer {shop.key}"}
            page = client.get(f"/t/{shop.name}/items?available=false&limit=1000", headers=headers)
            if (withdrawn := {*page.json()["items"]}) != shop.withdrawn:
                differ = sorted(withdrawn ^ shop.withdrawn)
                tally.leaks.append(f"withdrawn of {shop.name}: {differ[:3]} differ")
            users = {user for each in shops for user in each.histories}
            for user in sorted(users):
                url = f"/t/{shop.name}/users/{user}/history"
                stored = client.get(url, headers=headers).json()["items"]
                if stored != shop.histories.get(user, []):
                    tally.leaks.append(f"in the end, {user} of {shop.name}: {stored}")


def counts(metrics: str) -> dict[str, float]:
    """Requests by shop, refused ones included."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "re4_requests_total" and sample.labels["tenant"]:
                found[sample.labels["tenant"]] += int(sample.value)
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--shops", type=int, default=5)
    parser.add_argument("--connections", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    shops = [Shop(f"shop-{number}", new_key()) for number in range(arguments.shops)]
    operator = new_key()
    with tempfile.TemporaryDirectory(prefix="re4-") as name:
        folder = Path(name)
        lines = [key_line(shop.key, ROLES, shop.name) for shop in shops]
        (folder / "keys").write_text("\n".join([*lines, key_line(operator, ["read"], "*")]))
        tables = []
        for number, shop in enumerate(shops):
            root = folder / shop.name
            write_release(root, shop.name, seed=number, item_name=shop.name)
            point(root, shop.name)
            tables.append(f'[{shop.name}]\nreleases = "{root}"\n')
        (folder / "tenants.toml").write_text("".join(tables))
        with serving(
            Path(),
            releases="",
            tenants=folder / "tenants.toml",
            keys_file=folder / "keys",
            workers=arguments.workers,
            max_queue_size=4096,
        ) as server:
            server.wait_for("release loaded", arguments.workers * arguments.shops)
            start = time.perf_counter()
            tally = asyncio.run(load(server, shops, arguments.requests, arguments.connections))
            seconds = time.perf_counter() - start
            check_afterwards(server, shops, tally, operator)
    report(tally, shops, seconds)


def report(tally: Tally, shops: list[Shop], seconds: float) -> None:
    for line in (*tally.leaks[:20], *tally.failures[:20]):
        print(line, file=sys.stderr)
    total = sum(tally.requests.values())
    passed = not (tally.leaks or tally.failures)
    print(f"{total:,} requests to {len(shops)} shops: {len(tally.leaks)} leaked")
    summary = {
        "passed": passed,
        "requests": total,
        "per_second": round(total / seconds),
        "by_shop": dict(tally.requests),
        "statuses": {str(status): n for status, n in sorted(tally.statuses.items())},
        "actions": dict(tally.actions),
        "leaks": len(tally.leaks),
        "failures": len(tally.failures),
    }
    print(json.dumps(summary))
    sys.exit(not passed)


if __name__ == "__main__":
    main()
