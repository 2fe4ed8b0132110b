"""The bodies that the page sends. Its endpoints are internal, so they are in no documentation."""

from pydantic import Field

from service.http.schemas.common import Ids, Input
from service.http.schemas.recommend import RecommendRequest
from service.store.events import Id


class Described(Input):
    """Items to show, and the history whose interests to place on the map."""

    items: Ids
    sequence: Ids = Field([], description="item ids, oldest first")
    release: Id | None = Field(None, description="another release than the live one")


class Compared(Input):
    """A request to another release than the live one."""

    release: Id
    request: RecommendRequest


class RollbackTo(Input):
    to: Id
