"""What an answer shows: its impression id, and what is noted for caps and further pages."""

import secrets
from typing import Any

from service.errors import HistoryUnavailableError
from service.http.schemas.recommend import RecommendRequest
from service.http.state import ServiceState
from service.store.cursors import Cursor


async def note_shown(
    state: ServiceState, body: RecommendRequest, cursor: Cursor | None, answer: dict[str, Any]
) -> None:
    """Give an answer its impression_id. With a cap, items that other answers have shown meanwhile
    are taken out; with a cursor, the answer has the next one, or null on the last page.

    If that cannot be noted, the answer is degraded, and has no further page.
    """
    answer["impression_id"] = impression = secrets.token_urlsafe(16)
    if body.frequency_cap is None and cursor is None:
        return
    is_last = len(answer["items"]) < body.k
    following: Cursor | None = None
    try:
        if body.frequency_cap is not None and body.user_id is not None:
            ids = [item["item_id"] for item in answer["items"]]
            cap = body.frequency_cap.allowed()
            allowed = await state.impressions.note(body.user_id, impression, ids, cap)
            shown = zip(answer["items"], allowed, strict=True)
            answer["items"] = [item for item, may in shown if may]
        if cursor is not None and not is_last:
            ids = [item["item_id"] for item in answer["items"]]
            following = await state.impressions.pages.add(cursor, ids)
    except HistoryUnavailableError:
        answer["degraded"] = True
    if cursor is not None:
        answer["cursor"] = None if following is None else str(following)
