"""How a log is read, filtered, split and evaluated on: the part of a fit's settings that the data
needs."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from training.data.former_names import with_current_names
from training.data.splits import ProtocolName


class LogOptions(BaseModel):
    """The settings of a log. Descriptions are the command line's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        "auto", description="file format of the log; auto detects it from name and content"
    )
    event_types: tuple[str, ...] = Field(
        (), description="event types to keep; without it, all are kept"
    )
    min_weight: float | None = Field(
        None, description="minimum weight (rating) of an interaction to keep"
    )
    min_user_interactions: int = Field(
        5, ge=1, description="users with fewer interactions are left out (k-core)"
    )
    min_item_interactions: int = Field(
        5, ge=1, description="items with fewer interactions are left out (k-core)"
    )
    split: ProtocolName = Field("unseen-users", description="evaluation protocol")
    test_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of users for test, and as many again for validation"
    )
    split_seed: int = Field(0, description="seed of the draw of test and validation users")
    exclude_seen: bool = Field(
        True,
        description="leave the items of the history out of the results: in evaluation, and in the "
        "service where a request does not say; false for shops of repeat purchases",
    )

    @classmethod
    def from_stored(cls, settings: Mapping[str, Any]) -> Self:
        """Those settings of a manifest or a report that this class has; former names are read too.

        Settings that it does not have are ignored. Raises ValidationError for a value not allowed.
        """
        current = with_current_names(settings)
        return cls.model_validate({n: current[n] for n in cls.model_fields if n in current})
