"""What a request says of what its user was shown before: caps, and pages."""

import time
from typing import Annotated

from pydantic import Field

from service.http.schemas.common import Input
from service.store.cursors import CURSOR
from service.store.shown_items import MAX_TIMES, ShownCap

_HOUR_S = 3600.0

Cursor = Annotated[str, Field(pattern=f"^(?:{CURSOR})$", max_length=32, examples=["start"])]


class FrequencyCap(Input):
    """How often an item may be shown to a user."""

    times: int = Field(ge=1, le=MAX_TIMES, description="times that an item may be shown")
    hours: float | None = Field(
        None, gt=0, le=876_000, description="in the last so many hours; without it, all are counted"
    )

    def allowed(self) -> ShownCap:
        return ShownCap(self.times, time.time() - self.hours * _HOUR_S if self.hours else 0.0)
