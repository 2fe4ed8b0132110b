"""How a log is read, filtered and split."""

from pydantic import BaseModel, ConfigDict, Field

from training.data.splits import ProtocolName


class LogOptions(BaseModel):
    """The settings of a log. Descriptions are the command line's help."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = Field(
        "auto", description="file format of the log; auto looks at name and content"
    )
    events: tuple[str, ...] = Field((), description="event types to keep; none given keeps all")
    min_weight: float | None = Field(None, description="least weight (rating) to keep")
    min_user_interactions: int = Field(
        5, ge=1, description="users with fewer interactions are left out (k-core)"
    )
    min_item_interactions: int = Field(
        5, ge=1, description="items with fewer interactions are left out (k-core)"
    )
    split: ProtocolName = Field("unseen-users", description="protocol of evaluation")
    test_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of users for test, and as many again for validation"
    )
    split_seed: int = Field(0, description="which users are in test and validation")
