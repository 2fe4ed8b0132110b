"""POST /recommend: for whom, and the candidates."""

from typing import Literal

from pydantic import Field, model_validator

from service.schemas.common import K_LIMIT, Id, Ids, Input, Output


class RecommendRequest(Input):
    """For whom: a user, whose stored history is read, or a sequence, or both."""

    user_id: Id | None = Field(None, description="whose stored history to start from")
    sequence: Ids | None = Field(
        None, description="item ids, oldest first; with user_id, they follow the stored history"
    )
    k: int = Field(50, ge=1, le=K_LIMIT, description="items wanted")
    exclude_seen: bool = Field(True, description="leave out the items of the history")

    @model_validator(mode="after")
    def _for_somebody(self) -> "RecommendRequest":
        if self.user_id is None and self.sequence is None:
            raise ValueError("neither user_id nor sequence; give one, or both")
        return self


class Candidate(Output):
    item_id: str
    score: float = Field(
        description="inner product with the interest; for popular items, interactions in the log"
    )
    interest: int | None = Field(
        description="which of the user's interests, from 0, found the item; null if popular"
    )


class Recommendations(Output):
    """Candidates, best first, none twice; fewer than k only if the catalogue has no more."""

    items: list[Candidate]
    release: str = Field(description="id of the release that gave them")
    source: Literal["interests", "popular"] = Field(
        description="popular where the history is empty or holds no known item"
    )
    degraded: bool = Field(description="whether the stored history was wanted but not to be had")
    unknown_items: int = Field(description="items of the history that the release does not know")
