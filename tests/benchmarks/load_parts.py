"""The parts of the service alone: its engine in a bare loop, its web layer with an answer ready.

Run by service.py, which has a package's name; so this is a module of its own, started with -m.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

os.environ["OMP_NUM_THREADS"] = "1"

import orjson
import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from index.release.manifest import RELEASES
from index.release.reading import Release, open_release, read_current
from index.retrieval.query import Query
from index.retrieval.retriever import Retriever
from index.retrieval.search import Timings
from service.app import create_app
from service.http.load_shedding import SheddingProtocol
from service.http.recommendations import recommendations
from service.http.schemas.recommend import RecommendRequest
from service.serving.outcome import QueryResult
from service.serving.server import DrainingServer
from service.settings import Settings
from tests.benchmarks.stage_clock import STAGES, StageClock

K = 50


def queries(root: Path) -> list[Query]:
    return [Query(sequence, K) for sequence in json.loads((root / "sequences.json").read_text())]


def current(root: Path) -> Release:
    return open_release(root / RELEASES / str(read_current(root)))


def engine(settings: Settings) -> None:
    """For each line, a number of seconds: run so long, and print the microseconds a request."""
    retriever, asked = current(settings.releases).retriever, queries(settings.releases)
    sizes = (1, settings.max_batch_size)
    for line in sys.stdin:
        result: dict[str, float] = {}
        for size in sizes:
            result |= loop(retriever, asked, size, float(line) / len(sizes))
        print(json.dumps(result), flush=True)


def loop(
    retriever: Retriever, asked: Sequence[Query], size: int, seconds: float
) -> dict[str, float]:
    """Microseconds a request, and of each stage, in batches of that size."""
    batches = [asked[i : i + size] for i in range(0, len(asked) - size, size)]
    timings, done, start = Timings(), 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        retriever.recommend(batches[done % len(batches)], timings)
        done += 1
    stages = {stage: getattr(timings, stage) for stage in ("encode", "search", "merge")}
    return {
        f"{name}_us_batch_{size}": 1e6 * total / done / size
        for name, total in {"engine": spent, **stages}.items()
    }


class PreparedEngine:
    """Has one answer, for whatever is asked."""

    def __init__(self, served: QueryResult) -> None:
        self._served = served

    def is_full(self, depth: int) -> bool:
        return False

    def admit(self, deadline: float) -> None:
        pass

    async def answer(
        self, query: Query, is_gone: Callable[[], bool], deadline: float, variants: object
    ) -> QueryResult:
        return self._served


def floor(settings: Settings) -> None:
    """Serve with a prepared engine."""
    app = create_app(settings)
    release = current(settings.releases)
    [answer] = release.retriever.recommend(queries(settings.releases)[:1])
    app.state.service.engine = PreparedEngine(QueryResult(answer, release, Timings(), queue_s=0.0))
    DrainingServer(app, settings, SheddingProtocol).run()


class _Bare(asyncio.Protocol):
    """As long an answer as a refusal, to whatever comes, of which nothing is read."""

    _ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 250\r\n\r\n" + bytes(250)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._ANSWER)


def bare(settings: Settings) -> None:
    """Serve with less than any refusal takes: what the sockets and the event loop cost alone."""
    uvloop.run(_bare(settings.port))


async def _bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", port)
    await server.serve_forever()


def framework(settings: Settings) -> None:
    """Serve with a prepared engine, and every request through the framework, as one logs it."""
    floor(settings.model_copy(update={"trusted_proxies": "127.0.0.1"}))


def prepared_content(settings: Settings) -> bytes:
    release = current(settings.releases)
    [answer] = release.retriever.recommend(queries(settings.releases)[:1])
    return orjson.dumps(recommendations(QueryResult(answer, release, Timings(), 0.0), False, False))


def fastapi(settings: Settings) -> None:
    """Serve with nothing but FastAPI, which validates the body; the answer's bytes are ready."""
    app, content = FastAPI(), prepared_content(settings)

    @app.post("/recommend")
    async def recommend(body: RecommendRequest) -> Response:
        return Response(content, media_type="application/json")

    serve_alone(app, settings)


def starlette(settings: Settings) -> None:
    """Serve with nothing but Starlette, which reads the body; the answer's bytes are ready."""
    content = prepared_content(settings)

    async def recommend(request: Request) -> Response:
        await request.body()
        return Response(content, media_type="application/json")

    routes = [Route("/recommend", recommend, methods=["POST"])]
    serve_alone(Starlette(routes=routes), settings)


def serve_alone(app: Starlette, settings: Settings) -> None:
    async def ready(_: Request) -> Response:
        return Response()

    app.routes.append(Route("/readyz", ready))
    uvicorn.run(app, port=settings.port, loop="uvloop", http="httptools", log_level="warning")


def stages(settings: Settings) -> None:
    """Serve, and print at the end the seconds in each stage (see stages.py)."""
    clock = StageClock()
    clock.install(STAGES)
    DrainingServer(create_app(settings), settings, SheddingProtocol).run()
    print(json.dumps(clock.totals()))


if __name__ == "__main__":
    parts = (engine, floor, bare, framework, fastapi, starlette, stages)
    {part.__name__: part for part in parts}[sys.argv[1]](Settings())  # which are in the environment
