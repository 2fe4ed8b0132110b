"""Business rules of a recommendation: boosts, the quota of an interest, minimums."""

from typing import Annotated

from pydantic import Field

from service.http.schemas.attributes import ItemFilter
from service.http.schemas.common import Input
from service.settings import MAX_K
from service.store.events import Text

_BOOSTS_LIMIT = 5  # each different sum of some of them is searched for on its own
_ADD_LIMIT = 100.0
_CATEGORIES_LIMIT = 32


class BoostedItems(Input):
    """Adds to the score of the items that the filter allows; of several boosts, the sum.

    On a scale that no model and no k changes: adding 1 lifts the worst of the 4k best allowed items
    to the best.
    """

    filter: ItemFilter = Field(description="which items")
    add: float = Field(
        ge=-_ADD_LIMIT,
        le=_ADD_LIMIT,
        description="what to add, times the spread of the scores: best less worst of the 4k best "
        "allowed items without boosts, or 1 if all are equal; a negative number lowers",
    )


Boosts = Annotated[list[BoostedItems], Field(max_length=_BOOSTS_LIMIT)]
InterestQuota = Annotated[int, Field(ge=1, le=MAX_K)]
CategoryMinimums = Annotated[
    dict[Text, Annotated[int, Field(ge=1, le=MAX_K)]], Field(max_length=_CATEGORIES_LIMIT)
]
MinNewItems = Annotated[int, Field(ge=0, le=MAX_K)]
