"""The file of the model of items' words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.release.manifest import TEXT_MODEL
from index.release.text_model import read_text_model, write_text_model
from index.retrieval.details import Details
from index.retrieval.text_model import TextModel

MODEL = TextModel(
    {"title weiß": 1, "category 書": 0},
    idf=np.array([1, 2], np.float32),
    weights=np.array([[1, 0, 2], [0, 1, 0]], np.float32),
    intercept=np.array([0.5, 0, 0], np.float32),
    norm=3.5,
    terms=np.array([7], np.float32),
)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    assert write_text_model(tmp_path, MODEL).keys() == {TEXT_MODEL}
    read = read_text_model(tmp_path / TEXT_MODEL, 4, 3)
    assert read.words == MODEL.words
    items = {"a": Details("Weiß"), "b": Details(None, ["書"])}
    np.testing.assert_array_equal(read.delta(items).vectors, MODEL.delta(items).vectors)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"idf": np.ones(3, np.float32)}, r"idf is float32 \(3,\), not float32 \(2,\)"),
        ({"weights": np.ones((2, 4), np.float32)}, r"weights is .* not float32 \(2, 3\)"),
        ({"terms": np.ones(0, np.float32)}, r"terms is .* not float32 \(1,\)"),
        ({"intercept": np.ones(3)}, "intercept is float64"),
        ({"norm": np.inf}, "norm has values that are not finite"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    write_text_model(tmp_path, replace(MODEL, **changes))
    with pytest.raises(ValueError, match=message):
        read_text_model(tmp_path / TEXT_MODEL, 4, 3)
