"""What an event of each kind does to its user's history, in the service and in training alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

Effect = Literal["history", "exclude", "undo", "shown", "none"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
DEFAULT_EFFECTS = "dislike=exclude,impression=shown,return=undo"


@dataclass(frozen=True, slots=True)
class EventKinds:
    """The effect of each kind; a kind that is not named, and an event without one, has `history`.

    history: the item joins the history. exclude: it does not, and is left out of answers.
    undo: the newest entry of the item leaves the history. shown: the item was shown to the user,
    which counts for caps on that. none: nothing happens.
    """

    effects: Mapping[str, Effect]

    @classmethod
    def of(cls, parts: Iterable[str]) -> Self:
        """From KIND=EFFECT each; of the kinds of DEFAULT_EFFECTS those that are not named keep
        theirs. Raises ValueError."""
        effects = dict(map(_parse, DEFAULT_EFFECTS.split(",")))
        named: set[str] = set()
        for kind, effect in map(_parse, parts):
            if kind in named:
                raise ValueError(f"two effects for {kind}; give one")
            named.add(kind)
            effects[kind] = effect
        return cls(effects)

    @property
    def parts(self) -> tuple[str, ...]:
        """As `of` reads them, in order of the kinds."""
        return tuple(f"{kind}={effect}" for kind, effect in sorted(self.effects.items()))

    def effect(self, kind: str | None) -> Effect:
        return self.effects.get(kind, "history") if kind else "history"

    def named(self, *effects: Effect) -> tuple[str, ...]:
        """The kinds that are named with one of these effects."""
        return tuple(kind for kind, effect in self.effects.items() if effect in effects)


def _parse(part: str) -> tuple[str, Effect]:
    kind, _, given = (text.strip() for text in part.rpartition("="))
    for effect in EFFECTS:
        if kind and effect == given:
            return kind, effect
    raise ValueError(
        f"{part!r} is not KIND=EFFECT; an effect is {', '.join(EFFECTS[:-1])} or {EFFECTS[-1]}, "
        "such as in dislike=exclude,return=undo"
    )
