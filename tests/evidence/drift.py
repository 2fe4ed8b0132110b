"""Whether the memory of a process grows with time, or with the requests that it has answered."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from server import Server

_WARM_UP = 0.25  # share of a run in which caches fill


@dataclass(frozen=True)
class Slope:
    """By least squares. error: its standard error; noise: standard deviation of the residuals."""

    slope: float
    error: float
    noise: float

    def rounded(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}


def fit(positions: Sequence[float], values: Sequence[float]) -> Slope | None:
    """None with fewer than three samples."""
    if len(positions) < 3:
        return None
    x, y = np.array(positions, dtype=float), np.array(values, dtype=float)
    x -= x.mean()
    slope = float(x @ y / (x @ x))
    residuals = y - y.mean() - slope * x
    noise = float(np.sqrt(residuals @ residuals / (len(x) - 2)))
    return Slope(slope, noise / float(np.sqrt(x @ x)), noise)


class Drift:
    """Samples of a server's resources, at positions such as seconds or requests."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._positions: list[float] = []
        self._samples: list[dict[str, float]] = []

    def sample(self, position: float) -> None:
        self._positions.append(position)
        self._samples.append(asdict(self._server.weigh()))

    def slope(self, name: str, per: float = 1.0) -> Slope | None:
        """Of one resource, per `per` units of position; the warm-up is left out."""
        first = int(len(self._positions) * _WARM_UP)
        positions = [position / per for position in self._positions[first:]]
        return fit(positions, [sample[name] for sample in self._samples[first:]])

    def ends(self, name: str) -> list[float]:
        """The first value, the first after the warm-up, and the last."""
        values = [sample[name] for sample in self._samples]
        return [round(values[i], 1) for i in (0, int(len(values) * _WARM_UP), -1)]
