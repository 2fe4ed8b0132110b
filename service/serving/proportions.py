"""Statistics of hit rates: an interval for one, and for the difference of two at every look.

The difference has a confidence sequence: the interval may be looked at after every user, and all of
these intervals together miss the true difference with probability alpha at the most. It is the
inversion of the mixture sequential probability ratio test of Johari, Koomen, Pekelis and Walsh,
"Always Valid Inference: Continuous Monitoring of A/B Tests", Operations Research 70(3), 2022: the
difference is taken as normal with its estimated variance V, and the likelihood ratio is mixed over
normal differences of standard deviation _PRIOR_SD. That the difference is normal holds for many
users only, so the caller asks for some before it decides.

An observation is a user, not an answer: the answers of one user resemble each other.
"""

import math
from dataclasses import dataclass

# Of the differences to be found, in hit rate. The sequence is valid with any, and narrowest for
# differences of about this size.
_PRIOR_SD = 0.03
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Proportion:
    """hits: users, of all that were observed, who had one."""

    users: int
    hits: int

    @property
    def rate(self) -> float:
        return self.hits / self.users if self.users else 0.0

    @property
    def variance(self) -> float:
        """Of the rate; with one more user who half had a hit, so that it is never 0."""
        share = (self.hits + 0.5) / (self.users + 1)
        return share * (1 - share) / (self.users + 1)


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    estimate: float
    high: float


def wilson(observed: Proportion) -> Interval:
    """The 95 % interval of Wilson for one rate, for a single look; 0 to 1 without users."""
    n = observed.users
    if not n:
        return Interval(0.0, 0.0, 1.0)
    rate, z2 = observed.rate, _Z95**2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    radius = _Z95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    return Interval(max(0.0, centre - radius), rate, min(1.0, centre + radius))


def difference(first: Proportion, second: Proportion, alpha: float) -> Interval:
    """first - second, with an interval that holds at every look with probability 1 - alpha."""
    estimate = first.rate - second.rate
    variance, prior = first.variance + second.variance, _PRIOR_SD**2
    total = variance + prior
    radius = math.sqrt(2 * variance * total / prior * math.log(math.sqrt(total / variance) / alpha))
    return Interval(max(-1.0, estimate - radius), estimate, min(1.0, estimate + radius))
