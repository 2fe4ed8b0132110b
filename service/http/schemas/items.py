"""GET /items/{item_id} and GET /items/{item_id}/similar."""

from pydantic import Field

from service.http.schemas.attributes import AttributeValue
from service.http.schemas.common import Output, example


class Item(Output):
    """An item as the release knows it, with what the shop has changed since."""

    model_config = example(
        item_id="item-1",
        title="A winter's tale",
        categories=["books"],
        attributes={"price": 9.5, "stock": True},
        available=True,
        in_release=True,
        changed=["title", "price"],
        release="2026-01-01",
    )

    item_id: str
    title: str | None
    categories: list[str] = Field(description="the most important first")
    attributes: dict[str, AttributeValue] = Field(description="without those that are unknown")
    available: bool = Field(description="false for a withdrawn item")
    in_release: bool = Field(description="whether the release knows it")
    changed: list[str] = Field(
        description="which of title, categories and attributes the shop has said since"
    )
    release: str = Field(description="id of the release in use")


class SimilarItem(Output):
    item_id: str
    score: float = Field(description="inner product with the item's vector, normalized to length 1")


class SimilarItems(Output):
    """The nearest items, nearest first, without the item itself and withdrawn items."""

    model_config = example(items=[{"item_id": "item-2", "score": 3.2}], release="2026-01-01")

    items: list[SimilarItem]
    release: str = Field(description="id of the release that was searched")
