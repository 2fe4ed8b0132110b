"""The endpoints of the page, below /page/. Candidates come from the public POST /recommend."""

import asyncio
from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from fastapi import Query as QueryParameter
from starlette.requests import Request
from starlette.responses import Response

from index.release.gate import DEFAULT_GATE
from index.release.listing import ReleaseListing, list_releases
from index.release.manifest import Manifest
from index.release.publish import rollback
from index.release.reading import Release
from index.retrieval.catalog import PADDING
from index.retrieval.search import Timings
from service.http.queries import look_up, query_of
from service.http.recommendations import recommendations
from service.http.responses import json_response
from service.http.state import state_of
from service.page.changed_titles import find, now_called
from service.page.nights import read_nights
from service.page.schemas import Compared, Described, RollbackTo
from service.page.shown import ShownReleases, View
from service.serving.outcome import QueryResult
from service.store.details_in_use import DetailsInUse

_EXAMPLES = 12  # histories to begin with
_CATEGORIES = 200  # the largest
_MAPPED = 1500  # items of the catalogue on the map
_METRICS = ("recall@50", "ndcg@50")

Text = Annotated[str, QueryParameter(max_length=200)]
Limit = Annotated[int, QueryParameter(ge=1, le=100)]


async def setup(request: Request) -> Response:
    """What the page must know to begin."""
    state = state_of(request)
    release, view = await _shown(request).live()
    retriever = release.retriever
    return json_response(
        {
            "version": version("re4"),
            "release": release.id,
            "items": len(retriever.catalog),
            "interests": retriever.encoder.interests,
            "encoder": release.manifest.encoder.name,
            "categories": view.titles.categories[:_CATEGORIES],
            "examples": [c.history for c in release.manifest.canaries[:_EXAMPLES] if c.history],
            "admin": state.settings.has_admin,
            "keys": not state.authorizer.keys.allows_anonymous,
        }
    )


async def search(request: Request, q: Text, limit: Limit = 20) -> Response:
    """Items by words of their title or category, as they are now, or by their id."""
    release, view = await _shown(request).live()
    details = state_of(request).item_details
    rows = [row for row in release.retriever.catalog.rows([q.strip()]) if row != PADDING]
    if q.strip():
        found = await asyncio.to_thread(find, q, limit, release.retriever.catalog, view, details)
        rows = list(dict.fromkeys([*rows, *found]))[:limit]
    return json_response({"items": [*_described(release, view, rows, details).values()]})


async def describe(request: Request, body: Described) -> Response:
    """Title, category and place on the map of each known item, and the places of the interests."""
    release, view = await _shown(request).of(body.release)
    retriever = release.retriever
    rows = [row for row in dict.fromkeys(retriever.catalog.rows(body.items)) if row != PADDING]
    history = [row for row in retriever.catalog.rows(body.sequence) if row != PADDING]
    interests = view.projection(retriever.encode([history])[0]) if history else []
    described = _described(release, view, rows, state_of(request).item_details)
    return json_response({"items": described, "interests": interests})


async def item_map(request: Request) -> Response:
    """A sample of the items, evenly spread over their popularity, with their places."""
    release, view = await _shown(request).live()
    count = len(release.retriever.catalog)
    rows = np.unique(np.linspace(1, count, min(count, _MAPPED)).astype(np.int64)).tolist()
    return json_response(
        {
            "items": [*_described(release, view, rows, state_of(request).item_details).values()],
            "explained": view.projection.explained,
        }
    )


async def compare(request: Request, body: Compared) -> Response:
    """The answer of another release, which is loaded for it, to the same request.

    What the user was shown, and the cursor's pages had, is left out; this answer is not noted.
    """
    state, wanted = state_of(request), body.request
    release, _ = await _shown(request).of(body.release)
    stored = await look_up(state, wanted, release.retriever.encoder.reads_gaps)
    timings = Timings()
    withdrawn = frozenset(release.retriever.catalog.rows(state.availability.withdrawn)) - {PADDING}
    [answer] = release.retriever.recommend([query_of(wanted, stored)], timings, withdrawn)
    result = QueryResult(answer, release, timings, 0.0)
    return json_response(recommendations(result, wanted.explain, stored.degraded, wanted.include))


async def releases(request: Request) -> Response:
    """The releases, newest first, with what the gate says of each beside its parent."""
    listed = await asyncio.to_thread(list_releases, state_of(request).settings.releases)
    manifests = {release.id: release.manifest for release in listed}
    return json_response(
        {"releases": [_release(release, manifests) for release in reversed(listed)]}
    )


async def nights(request: Request) -> Response:
    """The last nightly runs, newest first."""
    runs = await asyncio.to_thread(read_nights, state_of(request).settings.releases)
    return json_response({"nights": runs})


async def roll_back(request: Request, body: RollbackTo) -> Response:
    """Make an earlier release the live one, and load it."""
    state = state_of(request)
    folder = await asyncio.to_thread(rollback, state.settings.releases, body.to)
    await state.live.refresh(now=True)
    return json_response({"release": folder.name})


def _shown(request: Request) -> ShownReleases:
    shown: ShownReleases = request.app.state.page
    return shown


def _described(
    release: Release, view: View, rows: list[int], details: DetailsInUse
) -> dict[str, dict[str, Any]]:
    """By id: what the page shows of an item. rows: in 1..N."""
    catalog = release.retriever.catalog
    places = view.projection(np.asarray(release.retriever.vectors)[rows])
    shown = now_called(rows, catalog, view, details)
    return {
        (item_id := catalog.id(row)): {
            "item_id": item_id,
            "title": title,
            "category": category,
            "interactions": int(catalog.popularity[row - 1]),
            "place": place,
        }
        for row, (title, category), place in zip(rows, shown, places, strict=True)
    }


def _release(release: ReleaseListing, manifests: dict[str, Manifest | None]) -> dict[str, Any]:
    manifest = release.manifest
    shown = {"id": release.id, "live": release.current, "problem": release.problem}
    if manifest is None:
        return shown
    parent = manifests.get(manifest.parent) if manifest.parent else None
    index = manifest.index
    return {
        **shown,
        "created": manifest.created.isoformat(),
        "parent": manifest.parent,
        "encoder": manifest.encoder.name,
        "interests": manifest.encoder.arguments.get("interests"),
        "items": manifest.data.items,
        "users": manifest.data.users,
        "size_bytes": release.size_bytes,
        "metrics": {
            split: {name: values[name] for name in _METRICS if name in values}
            for split, values in manifest.metrics.items()
        },
        "index": index and {"kind": index.spec.kind, "recall": index.recall, "k": index.k},
        "index_microseconds": index and index.microseconds,
        "gate": DEFAULT_GATE.failures(manifest, parent),
    }
