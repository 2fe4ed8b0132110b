"""Which effect an event has, by its kind."""

import pytest

from index.event_kinds import DEFAULT_EFFECTS, EventKinds


@pytest.mark.parametrize(
    ("kind", "effect"),
    [
        *((kind, "history") for kind in ("purchase", "view", "cart", "listened", "", None)),
        ("dislike", "exclude"),
        ("impression", "shown"),
        ("return", "undo"),
    ],
)
def test_the_defaults(kind: str | None, effect: str) -> None:
    assert EventKinds.of(()).effect(kind) == effect


def test_kinds_that_are_not_named_keep_theirs() -> None:
    kinds = EventKinds.of(["return = none", "a=b=undo", "view=exclude"])
    assert [kinds.effect(kind) for kind in ("return", "a=b", "view", "dislike", "cart")] == [
        "none",
        "undo",
        "exclude",
        "exclude",
        "history",
    ]
    assert EventKinds.of(kinds.parts) == kinds


def test_the_default_text_is_the_default() -> None:
    assert ",".join(EventKinds.of(()).parts) == DEFAULT_EFFECTS


@pytest.mark.parametrize("part", ["return", "=undo", "return=", "return=Undo", ""])
def test_what_is_no_effect_is_refused(part: str) -> None:
    allowed = "is not KIND=EFFECT; an effect is history, exclude, undo, shown or none"
    with pytest.raises(ValueError, match=f"'{part}' {allowed}"):
        EventKinds.of([part])


def test_a_kind_has_one_effect() -> None:
    with pytest.raises(ValueError, match="two effects for view; give one"):
        EventKinds.of(["view=none", "view=history"])
