"""What is known of an item: title, categories and attributes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from index.retrieval.attribute_filter import Scalar

Value = Scalar | tuple[str, ...]
TITLE, CATEGORIES = "title", "categories"


@dataclass(frozen=True, slots=True)
class Details:
    """None or absent where nothing is known; the most important category is the first."""

    title: str | None = None
    categories: Sequence[str] | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of what is known: title, categories and attributes."""
        given = {TITLE: self.title, CATEGORIES: self.categories}
        return [*(name for name, value in given.items() if value is not None), *self.attributes]

    def named(self, names: Iterable[str]) -> dict[str, Value | None]:
        """These attributes, None where unknown; `title` is the title."""
        known = {**self.attributes, TITLE: self.title}
        return {name: known.get(name) for name in names}

    def over(self, known: "Details") -> "Details":
        """These details, and of the known ones those that are not among them."""
        return Details(
            known.title if self.title is None else self.title,
            known.categories if self.categories is None else self.categories,
            {**known.attributes, **self.attributes},
        )


NOTHING = Details()
