"""What the page needs of a release beside its retriever, made when it is first looked at."""

import asyncio
from dataclasses import dataclass

from index.release.listing import release_folder
from index.release.reading import Release
from service.errors import NotReadyError
from service.http.state import ServiceState
from service.page.projection import Projection
from service.page.titles import Titles

_IDLE_S = 600.0  # for which a release that nobody compares with stays loaded


@dataclass(frozen=True)
class View:
    """Derived from a release, which it does not keep from being deleted."""

    titles: Titles
    projection: Projection


class ShownReleases:
    """The live release and at most one other, to compare with, each with its view."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self._lock, self._view_lock = asyncio.Lock(), asyncio.Lock()
        self._views: dict[str, View] = {}
        self._other: Release | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def live(self) -> tuple[Release, View]:
        """Raises NotReadyError without a release, ReleaseError for titles that cannot be read."""
        release = self._state.live.release
        if release is None:
            raise NotReadyError("release: none is loaded yet; GET /release says why")
        return release, await self._view(release)

    async def of(self, release_id: str | None) -> tuple[Release, View]:
        """The release of that id, or the live one; another one is loaded, and replaces the last.

        Raises as `live`, and ReleaseError for a release that cannot be opened.
        """
        live = self._state.live.release
        if release_id is None or (live is not None and live.id == release_id):
            return await self.live()
        async with self._lock:
            release = self._other
            if release is None or release.id != release_id:
                self._other = release = None  # before the next one takes memory
                self._other = release = await self._state.live.open(release_id)
        self._drop_when_idle()
        return release, await self._view(release)

    async def _view(self, release: Release) -> View:
        async with self._view_lock:
            view = self._views.get(release.id)
            if view is None:
                view = await asyncio.to_thread(self._make_view, release)
                kept = {shown.id for shown in (self._state.live.release, self._other) if shown}
                self._views = {name: v for name, v in self._views.items() if name in kept}
                self._views[release.id] = view
            return view

    def _make_view(self, release: Release) -> View:
        folder = release_folder(self._state.settings.releases, release.id)
        return View(Titles.read(folder), Projection(release.retriever))

    def _drop_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(_IDLE_S, self._drop)

    def _drop(self) -> None:
        self._other = self._idle = None
