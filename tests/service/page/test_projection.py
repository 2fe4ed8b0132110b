"""The map shows the plane in which the items' directions differ most."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.page.projection import Projection


def retriever(vectors: NDArray[np.float32], content: int | None = None) -> Any:
    """What a projection reads of one."""
    encoder = SimpleNamespace(content=content or vectors.shape[1])
    return SimpleNamespace(catalog=range(len(vectors) - 1), vectors=vectors, encoder=encoder)


def planar(count: int, dim: int = 6) -> NDArray[np.float32]:
    """Directions in coordinates 1 and 4 alone, of any length; row 0 is padding."""
    generator = np.random.default_rng(0)
    vectors = np.zeros((count + 1, dim), np.float32)
    angles = generator.uniform(0, 1.5, count)
    vectors[1:, 4], vectors[1:, 1] = np.cos(angles), np.sin(angles)
    return vectors * generator.uniform(0.1, 9, (count + 1, 1)).astype(np.float32)


def test_distances_within_a_plane_are_kept() -> None:
    vectors = planar(200)
    project = Projection(retriever(vectors))
    places = np.array(project(vectors[1:]))
    directions = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    for first, second in [(0, 1), (5, 50), (100, 199)]:
        distance = np.linalg.norm(directions[first] - directions[second])
        assert np.linalg.norm(places[first] - places[second]) == pytest.approx(distance, abs=1e-3)
    assert sum(project.explained) == pytest.approx(1)
    assert project.explained[0] > project.explained[1]


def test_length_and_terms_of_the_score_do_not_matter() -> None:
    vectors = planar(50)
    with_bias = np.hstack([vectors, np.full((51, 1), 7, np.float32)])
    project = Projection(retriever(with_bias, content=6))
    assert project(with_bias[1:4]) == Projection(retriever(vectors))(3 * vectors[1:4])


@pytest.mark.parametrize("vectors", [planar(1), np.zeros((5, 6), np.float32), planar(9)[:, 4:5]])
def test_every_release_has_a_map(vectors: NDArray[np.float32]) -> None:
    places = np.array(Projection(retriever(vectors))(vectors[1:]))
    assert places.shape == (len(vectors) - 1, 2)
    assert np.isfinite(places).all()
