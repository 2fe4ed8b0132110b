"""The service behind a test's client, and a clock that a test sets."""

import httpx

from service.http.state import ServiceState


def state_behind(client: httpx.AsyncClient) -> ServiceState:
    """The state of the application that the client, as the fixture `serve` makes it, asks."""
    state: ServiceState = client._transport.app.state.service  # type: ignore[attr-defined]
    return state


class Clock:
    """Returns the seconds in `now`, which a test advances."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
