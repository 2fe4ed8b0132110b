"""Hit rates with their intervals, from counts of users; and as values of the metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from service.serving.proportions import Interval, Proportion, wilson
from service.store.live_quality import VariantCounts

_ALL = "all"  # in place of an interest
BOUNDS = ("low", "estimate", "high")


@dataclass(frozen=True)
class VariantQuality:
    """hit_rate: share of the users with a hit. by_interest: with a hit that this interest found."""

    users: int
    hit_rate: Interval
    by_interest: Mapping[str, Interval]
    answers: int
    items: int

    def samples(self) -> Iterator[tuple[tuple[str, str], float]]:
        """((interest, bound), rate) for the metrics; none without users."""
        if self.users:
            for interest, rate in {_ALL: self.hit_rate, **self.by_interest}.items():
                for bound in BOUNDS:
                    yield (interest, bound), getattr(rate, bound)


def proportion_of(counts: VariantCounts) -> Proportion:
    """Users, and those with a hit, whichever interest found it."""
    return Proportion(counts.users, sum(counts.hits.values()))


def quality_of(counts: VariantCounts) -> VariantQuality:
    return VariantQuality(
        counts.users,
        wilson(proportion_of(counts)),
        {
            interest: wilson(Proportion(counts.users, hits))
            for interest, hits in sorted(counts.hits.items())
        },
        counts.answers,
        counts.items,
    )
