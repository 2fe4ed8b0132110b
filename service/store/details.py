"""Details of an item, and changes of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = bool | float | str | tuple[str, ...]
_TITLE, _CATEGORIES, _ATTRIBUTE = "title", "categories", "="


@dataclass(frozen=True, slots=True)
class Details:
    """What is known of an item beside the release; None or absent where nothing is."""

    title: str | None = None
    categories: Sequence[str] | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Details":
        """From the fields that changes have set."""
        attributes = {
            name.removeprefix(_ATTRIBUTE): tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
            if name.startswith(_ATTRIBUTE)
        }
        return cls(fields.get(_TITLE), fields.get(_CATEGORIES), attributes)

    @property
    def names(self) -> list[str]:
        """Of what is known: title, categories and attributes."""
        given = {_TITLE: self.title, _CATEGORIES: self.categories}
        return [*(name for name, value in given.items() if value is not None), *self.attributes]

    def named(self, names: Iterable[str]) -> dict[str, Value | None]:
        """These attributes, None where unknown; `title` is the title."""
        known = {**self.attributes, _TITLE: self.title}
        return {name: known.get(name) for name in names}

    def over(self, known: "Details") -> "Details":
        """These details, and of the known ones those that are not among them."""
        return Details(
            known.title if self.title is None else self.title,
            known.categories if self.categories is None else self.categories,
            {**known.attributes, **self.attributes},
        )


@dataclass(frozen=True, slots=True)
class DetailsChange:
    """The fields to change: a value, or None to forget it.

    Their names: title, categories, and each attribute's after a `=`.
    """

    fields: Mapping[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any], attributes: Mapping[str, Any] | None) -> "DetailsChange":
        """given: of title and categories, those to change."""
        named = {f"{_ATTRIBUTE}{name}": value for name, value in (attributes or {}).items()}
        return cls({**given, **named})
