"""The parts of the service alone: its engine in a bare loop, its web layer with an answer ready.

Run by service.py, which has a package's name; so this is a module of its own, started with -m.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from index.release import RELEASES, Release, open_release, read_current
from index.retriever import Query, Timings
from service.app import create_app
from service.engine import Served
from service.logs import configure_logs
from service.server import DrainingServer
from service.settings import Settings

K = 50


def queries(root: Path) -> list[Query]:
    return [Query(sequence, K) for sequence in json.loads((root / "sequences.json").read_text())]


def current(root: Path) -> Release:
    return open_release(root / RELEASES / str(read_current(root)))


def engine(root: Path, seconds: float) -> None:
    """Print the engine's microseconds a request, alone and in full batches, and each stage's."""
    retriever, asked = current(root).retriever, queries(root)
    result: dict[str, float] = {}
    for size in (1, Settings.model_fields["batch_limit"].default):
        batches = [asked[i : i + size] for i in range(0, len(asked) - size, size)]
        for batch in batches[:50]:
            retriever.recommend(batch)
        timings, done, start = Timings(), 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            retriever.recommend(batches[done % len(batches)], timings)
            done += 1
        stages = {stage: getattr(timings, stage) for stage in ("encode", "search", "merge")}
        for name, total in {"engine": spent, **stages}.items():
            result[f"{name}_us_batch_{size}"] = 1e6 * total / done / size
    print(json.dumps(result))


class PreparedEngine:
    """Has one answer, for whatever is asked."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def admit(self) -> None:
        pass

    async def answer(self, query: Query, is_gone: Callable[[], bool]) -> Served:
        return self._served


def floor(root: Path, port: int) -> None:
    """Serve with a prepared engine."""
    configure_logs("warning")
    settings = Settings(releases=root, port=port, drain_s=0)
    app = create_app(settings)
    release = current(root)
    [answer] = release.retriever.recommend(queries(root)[:1])
    app.state.service.engine = PreparedEngine(Served(answer, release, Timings(), queue=0.0))
    DrainingServer(app, settings).run()


if __name__ == "__main__":
    part, folder, number = sys.argv[1:]
    if part == "engine":
        engine(Path(folder), float(number))
    else:
        floor(Path(folder), int(number))
