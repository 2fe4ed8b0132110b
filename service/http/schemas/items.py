"""GET /items/{item_id}/similar."""

from pydantic import Field

from service.http.schemas.common import Output, example


class SimilarItem(Output):
    item_id: str
    score: float = Field(description="inner product with the item's vector, normalized to length 1")


class SimilarItems(Output):
    """The nearest items, nearest first, without the item itself and withdrawn items."""

    model_config = example(items=[{"item_id": "item-2", "score": 3.2}], release="2026-01-01")

    items: list[SimilarItem]
    release: str = Field(description="id of the release that was searched")
