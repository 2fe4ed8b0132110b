"""Endpoints for operators: health, metrics, and the release in use."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from index.release.reading import Release
from service.errors import NotReadyError
from service.http.responses import json_response
from service.http.state import state_of
from service.http.tenants import TenantsState
from service.serving.canary import CanaryFailure, LoadedCanary
from service.serving.release_loader import LoadFailure, ReleaseLoader

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def livez(request: Request) -> Response:
    """The process responds. Depends on nothing else."""
    return json_response({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Whether to send requests here: a release is loaded, and the process is not shutting down."""
    state = state_of(request)
    if state.draining:
        raise NotReadyError("server: shutting down; send requests elsewhere")
    if state.live.release is None:
        raise NotReadyError("release: none is loaded yet; GET /release says why")
    failing = state.redis.failing
    if state.redis.up and not state.availability.is_read:
        raise NotReadyError("withdrawn items: not read from Redis yet; wait, or see the log")
    is_ok = state.redis.up and not failing
    content: dict[str, Any] = {
        "status": "ready",
        "release": state.live.release.id,
        "history": "ok" if is_ok else "degraded",
    }
    if failing:
        content["failing"] = failing
    return json_response(content)


async def tenants_readyz(request: Request) -> Response:
    """Whether to send requests to a process with several tenants; each has a readyz of its own.

    One tenant without a release keeps the others from nothing.
    """
    state: TenantsState = request.app.state.service
    if state.draining:
        raise NotReadyError("server: shutting down; send requests elsewhere")
    if state.ready == 0 or state.is_loading:
        raise NotReadyError("releases: being loaded; try again in a moment, or see the log")
    return json_response(
        {"status": "ready", "ready_tenants": state.ready, "tenants": len(state.tenants)}
    )


async def metrics(request: Request) -> Response:
    """All metrics, in Prometheus's text format."""
    return Response(state_of(request).metrics.text(), media_type=METRICS_TYPE)


async def release(request: Request) -> Response:
    """The release in use, the canary, and the errors of the last failed loads."""
    live, canary = state_of(request).live, state_of(request).canary
    return json_response(
        {
            "release": _release_info(live.release, live) if live.release else None,
            "last_reload_error": _failure_info(live.failure) if live.failure else None,
            "why_none": live.absence,
            "canary": _canary_info(canary.loaded) if canary.loaded else None,
            "canary_error": _canary_failure_info(canary.failure) if canary.failure else None,
        }
    )


_INDEX_FIELDS = {"spec", "recall", "k", "microseconds"}


def _release_info(release: Release, live: ReleaseLoader) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "id": manifest.id,
        "created": manifest.created.isoformat(),
        "parent": manifest.parent,
        "loaded_at": live.loaded_at.isoformat() if live.loaded_at else None,
        "encoder": manifest.encoder.name,
        "interests": release.retriever.encoder.interests,
        "items": len(release.retriever.catalog),
        "index": manifest.index.model_dump(mode="json", include=_INDEX_FIELDS)
        if manifest.index
        else None,
        "kernel": release.search.kernel,
        "searched_by": release.search.kind,
        "data": manifest.data.model_dump(mode="json"),
        "metrics": manifest.metrics,
    }


def _failure_info(failure: LoadFailure) -> dict[str, Any]:
    return {
        "release": failure.pointer.id,
        "message": failure.message,
        "failed_at": failure.failed_at.isoformat(),
        "attempts": failure.attempts,
    }


def _canary_info(canary: LoadedCanary) -> dict[str, Any]:
    return {**canary.settings.model_dump(), "loaded_at": canary.loaded_at.isoformat()}


def _canary_failure_info(failure: CanaryFailure) -> dict[str, Any]:
    return {
        "release": failure.release,
        "message": failure.message,
        "failed_at": failure.failed_at.isoformat(),
    }


async def reload(request: Request) -> Response:
    """Load the release that `current` names now, instead of at the next poll."""
    state = state_of(request)
    changed = await state.live.refresh(now=True)
    if state.live.release is None:
        raise NotReadyError("release: none is published; run: python -m index publish DRAFT")
    return json_response({"release": state.live.release.id, "changed": changed})
