"""What those who run the service ask it."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from index.release.reading import Release
from service.errors import NotReadyError
from service.http.state import json_response, service_of
from service.serving.release_loader import LoadFailure, ReleaseLoader

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def livez(request: Request) -> Response:
    """The process answers. Depends on nothing else."""
    return json_response({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Whether to send requests here: a release is loaded, and the process is not about to end."""
    service = service_of(request)
    if service.draining:
        raise NotReadyError("server: is about to end; send requests elsewhere")
    if service.live.release is None:
        raise NotReadyError("release: none is loaded yet; GET /release says why")
    history = "ok" if service.redis.up else "degraded"
    return json_response(
        {"status": "ready", "release": service.live.release.id, "history": history}
    )


async def metrics(request: Request) -> Response:
    """Everything that is counted and timed, for Prometheus."""
    return Response(service_of(request).metrics.text(), media_type=METRICS_TYPE)


async def release(request: Request) -> Response:
    """The release in use, and what was wrong with the last that could not be loaded."""
    live = service_of(request).live
    return json_response(
        {
            "release": _facts(live.release, live) if live.release else None,
            "last_reload_error": _failure(live.failure) if live.failure else None,
        }
    )


_INDEX = {"spec", "recall", "k", "microseconds"}


def _facts(release: Release, live: ReleaseLoader) -> dict[str, Any]:
    manifest = release.manifest
    return {
        "id": manifest.id,
        "created": manifest.created.isoformat(),
        "parent": manifest.parent,
        "loaded_at": live.loaded_at.isoformat() if live.loaded_at else None,
        "encoder": manifest.encoder.name,
        "interests": release.retriever.encoder.interests,
        "items": len(release.retriever.catalog),
        "index": manifest.index.model_dump(mode="json", include=_INDEX) if manifest.index else None,
        "data": manifest.data.model_dump(mode="json"),
        "metrics": manifest.metrics,
    }


def _failure(failure: LoadFailure) -> dict[str, Any]:
    return {
        "release": failure.pointer.id,
        "message": failure.message,
        "failed_at": failure.failed_at.isoformat(),
        "attempts": failure.attempts,
    }


async def reload(request: Request) -> Response:
    """Load what `current` names now, without waiting for the next look at it."""
    service = service_of(request)
    changed = await service.live.refresh(now=True)
    if service.live.release is None:
        raise NotReadyError("release: none is published; run: python -m index publish DRAFT")
    return json_response({"release": service.live.release.id, "changed": changed})
