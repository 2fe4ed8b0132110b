"""A canary in a week of users whose taste is known: better, equal or worse; is it recognised?

python canary_week.py [--simulations 200] [--users 20000] [--share 0.1] [--live worse,equal,better]

Simulations: users come one after the other. Each has a taste, which a release recognises with the
probability in RECOGNISED; then the list holds what the user likes, and the user takes it with a
probability of the user's own. Assignment, counts, intervals and verdict are the service's code; it
looks after every 20th user, and the first verdict is final.

--live: the same with a real service and its Redis, over HTTP, in a window of seconds. The taste of
a user is what one of the two releases recommends; the canary must be aborted if that is the live
one, and only then.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from releases import histories, point, write_release
from server import serving

from index.release.canary_file import CanaryRelease, write_canary
from index.release.reading import open_release
from index.retrieval.query import Query
from service.serving.canary import is_in_share
from service.serving.canary_quality import report_on
from service.store.live_quality import VARIANTS, VariantCounts
from service.telemetry.canary_metrics import Variant

HOURS = 168
# The probability that a release recognises a user's taste; that of the live one is first.
RECOGNISED = {"better": (0.5, 0.7), "equal": (0.5, 0.5), "worse": (0.5, 0.3)}
INTERESTS = 4
TAKES_POPULAR = 0.05  # the probability that a user whose taste is not recognised has a hit
ALPHAS = (0.01, 0.05, 0.1)
MIN_USERS = 100
LOOK_EVERY = 20  # users

# Of the runs with a service. With windows of 2 s, verdicts come within 10 s of the last answer.
LIVE_USERS, LIVE_SHARE, WINDOW_S, PATIENCE_S, K = 400, 0.5, 2.0, 15.0, 10


@dataclass(frozen=True)
class Ending:
    """The first verdict of a simulated week, and after how many hours."""

    verdict: str
    hours: float


def simulate(
    case: str, seed: int, users: int, share: float, alphas: Sequence[float]
) -> list[Ending]:
    """The ending of one week for each alpha."""
    generator = np.random.default_rng(seed)
    arrivals = np.sort(generator.uniform(0, HOURS, users))
    takes = generator.beta(2, 2, users)
    tastes = generator.integers(0, INTERESTS, users)
    luck = generator.random((2, users))
    counts: dict[Variant, VariantCounts] = {name: VariantCounts() for name in VARIANTS}
    endings = [Ending("undecided", HOURS) for _ in alphas]
    for user in range(users):
        variant: Variant = "canary" if is_in_share(f"{seed}-{user}", case, share) else "current"
        is_recognised = luck[0, user] < RECOGNISED[case][variant == "canary"]
        count = counts[variant]
        count.users += 1
        if luck[1, user] < (takes[user] if is_recognised else TAKES_POPULAR):
            interest = str(tastes[user]) if is_recognised else "popular"
            count.hits[interest] = count.hits.get(interest, 0) + 1
        if user % LOOK_EVERY:
            continue
        for place, alpha in enumerate(alphas):
            if endings[place].verdict == "undecided":
                verdict = report_on(counts, alpha, MIN_USERS).verdict
                endings[place] = Ending(verdict, float(arrivals[user]))
    return endings


def simulations(count: int, users: int, share: float) -> Iterator[dict[str, Any]]:
    """A row for each case and alpha."""
    for case in RECOGNISED:
        weeks = [simulate(case, seed, users, share, ALPHAS) for seed in range(count)]
        for place, alpha in enumerate(ALPHAS):
            endings = [week[place] for week in weeks]
            decided = [ending.hours for ending in endings if ending.verdict != "undecided"]
            yield {
                "case": case,
                "alpha": alpha,
                **{
                    verdict: sum(ending.verdict == verdict for ending in endings) / count
                    for verdict in ("better", "worse", "undecided")
                },
                "median_hours": round(float(np.median(decided)), 1) if decided else None,
            }


def is_right(row: dict[str, Any], count: int) -> bool:
    """An equal canary is judged as rarely as alpha says, with three standard errors for chance.

    A verdict on another is never the contrary; with a hundred weeks or more, that it is recognised
    is asked for too.
    """
    case, alpha = row["case"], row["alpha"]
    error: float = (alpha * (1 - alpha) / count) ** 0.5
    if case == "equal":
        return bool(row["better"] + row["worse"] <= alpha + 3 * error)
    contrary = row["worse" if case == "better" else "better"]
    return bool(contrary <= alpha + 3 * error and (count < 100 or row[case] >= 0.95))


def live(case: str) -> dict[str, Any]:
    """One canary in a real service."""
    with tempfile.TemporaryDirectory(prefix="re4-") as folder:
        root = Path(folder)
        write_release(root, "live", seed=1)
        write_release(root, "canary", seed=1 if case == "equal" else 2)
        point(root, "live")
        write_canary(root, CanaryRelease(release="canary", share=LIVE_SHARE, started=1.0))
        wanted = "canary" if case == "better" else "live"
        settings = {"canary_window_hours": WINDOW_S / 3600, "canary_min_users": 50}
        with serving(root, **settings) as server, httpx.Client(base_url=server.url) as client:
            server.wait_for("canary loaded", 1)
            visit(client, open_release(root / "releases" / wanted).retriever)
            return {"case": case, **report(client)}


def visit(client: httpx.Client, taste: Any) -> None:
    """Every user asks once, and half of those who find an item of their taste take it."""
    draw, generator = random.Random(0), np.random.default_rng(0)
    for number, history in enumerate(histories(generator, LIVE_USERS)):
        [answer] = taste.recommend([Query(history, K)])
        liked = {taste.catalog.id(int(row)) for row in answer.rows}
        body = {"user_id": f"user-{number}", "sequence": history, "k": K}
        shown = [item["item_id"] for item in client.post("/recommend", json=body).json()["items"]]
        found = [item for item in shown if item in liked]
        if found and draw.random() < 0.5:
            client.post("/events", json={"user_id": f"user-{number}", "item_id": found[0]})


def report(client: httpx.Client) -> dict[str, Any]:
    """What the service says once all users have been observed."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and not (content := client.get("/canary").json())["aborted"]:
        time.sleep(0.5)
    variants = content["quality"]["variants"]
    return {
        "aborted": content["aborted"],
        "verdict": content["quality"]["verdict"],
        "users": {name: variant["users"] for name, variant in variants.items()},
        "hit_rate": {name: round(v["hit_rate"]["estimate"], 3) for name, v in variants.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--live", default="better,equal,worse", help="cases with a real service")
    options = parser.parse_args()
    rows = [*simulations(options.simulations, options.users, options.share)]
    runs = [live(case) for case in options.live.split(",") if case]
    passed = all(is_right(row, options.simulations) for row in rows) and all(
        run["aborted"] == (run["case"] == "worse") for run in runs
    )
    for row in [*rows, *runs]:
        print(row)
    print(json.dumps({"passed": passed, "simulated": rows, "live": runs}))
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
