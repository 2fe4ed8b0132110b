"""GET /canary: the live quality of the canary and of the live release."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from service.http.responses import json_response
from service.http.state import state_of


async def canary(request: Request) -> Response:
    """The canary, its quality beside that of the live release, and the latter without a canary."""
    state = state_of(request)
    settings, report = state.canary.settings, await state.canary_quality.report()
    live = await state.quality.report()
    return json_response(
        {
            "release": settings.release if settings else None,
            "aborted": state.canary.aborted,
            "quality": asdict(report) if report else None,
            "live": {"release": live.release, **asdict(live.quality)} if live else None,
        }
    )
