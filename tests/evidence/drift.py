"""Whether what a process holds grows with time, or with the requests that it has answered."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from server import Server

_SETTLING = 0.25  # share of a run in which caches fill


@dataclass(frozen=True)
class Slope:
    """By least squares. error: its standard error; noise: standard deviation about the line."""

    slope: float
    error: float
    noise: float

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def fit(places: Sequence[float], values: Sequence[float]) -> Slope | None:
    """None of fewer than three samples."""
    if len(places) < 3:
        return None
    x, y = np.array(places, dtype=float), np.array(values, dtype=float)
    x -= x.mean()
    slope = float(x @ y / (x @ x))
    rest = y - y.mean() - slope * x
    noise = float(np.sqrt(rest @ rest / (len(x) - 2)))
    return Slope(slope, noise / float(np.sqrt(x @ x)), noise)


class Drift:
    """Samples of a server's weight, at places such as seconds or requests."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._places: list[float] = []
        self._weights: list[dict[str, float]] = []

    def sample(self, place: float) -> None:
        self._places.append(place)
        self._weights.append(asdict(self._server.weigh()))

    def slope(self, name: str, per: float = 1.0) -> Slope | None:
        """Of one of the weight's fields, in so many units of place; the beginning left out."""
        first = int(len(self._places) * _SETTLING)
        places = [place / per for place in self._places[first:]]
        return fit(places, [weight[name] for weight in self._weights[first:]])

    def ends(self, name: str) -> list[float]:
        """Where it began, after the settling, and where it ended."""
        values = [weight[name] for weight in self._weights]
        return [round(values[i], 1) for i in (0, int(len(values) * _SETTLING), -1)]
