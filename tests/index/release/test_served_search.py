"""An index tuned with another kernel is compared with exact search; the faster one is served."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.ann.build import build_index
from index.ann.comparison import Comparison, compare_with_exact
from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex
from index.ann.kernel_choice import find_kernel
from index.ann.processor import processor_name
from index.ann.spec import IndexMeasurement, IndexSpec
from index.release import served_search
from index.release.reading import open_release
from index.retrieval.query import Query
from index.retrieval.search import ItemIndex

MakeDraft = Callable[..., Path]
IVF = IndexSpec(kind="ivf", head=20, lists=4, margin=4, probes=2)


def measured(
    kernel: str | None, spec: IndexSpec = IVF, processor: str | None = None
) -> IndexMeasurement:
    """processor: by default this one."""
    return IndexMeasurement(
        spec=spec,
        recall=1.0,
        k=5,
        queries=4,
        microseconds=5.0,
        kernel=kernel,
        processor=processor or processor_name(),
    )


@pytest.fixture
def lists_take(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how many times exact search's time the lists take."""

    def set_ratio(ratio: float) -> None:
        def compare(lists: IvfIndex, interests: NDArray[np.float32], k: int) -> Comparison:
            timer = lambda index, _: ratio if index is lists else 1.0  # noqa: E731
            return compare_with_exact(lists, interests, k, timer)

        monkeypatch.setattr(served_search, "compare_with_exact", compare)

    return set_ratio


@pytest.mark.parametrize("tuned_with", ["another", None])
@pytest.mark.parametrize(("ratio", "kind"), [(2.0, FlatIndex), (1.0, FlatIndex), (0.5, IvfIndex)])
def test_the_faster_search_is_served_where_another_kernel_is_used(
    make_draft: MakeDraft,
    lists_take: Callable[[float], None],
    tuned_with: str | None,
    ratio: float,
    kind: type[ItemIndex],
) -> None:
    lists_take(ratio)
    release = open_release(make_draft(items=200, spec=IVF, index=measured(tuned_with)))
    assert isinstance(release.retriever.index, kind)
    fields = release.search.log_fields()
    assert fields["index"] == ("flat" if kind is FlatIndex else "ivf")
    assert fields["kernel"] == find_kernel().name
    assert fields["tuned_with"] == (tuned_with or "unknown")
    assert fields["lists_us"] == pytest.approx(ratio * 1e6)
    assert fields["exact_us"] == 1e6
    [answer] = release.retriever.recommend([Query(["item-1"], 5)])
    assert len(answer.rows) == 5


def test_an_index_tuned_with_this_kernel_is_served_as_it_is(
    make_draft: MakeDraft, lists_take: Callable[[float], None]
) -> None:
    lists_take(100.0)
    here = find_kernel().name
    release = open_release(make_draft(items=200, spec=IVF, index=measured(here)))
    assert isinstance(release.retriever.index, IvfIndex)
    assert release.search.log_fields() == {"kernel": here, "index": "ivf"}


def test_an_index_tuned_on_another_processor_is_compared(
    make_draft: MakeDraft, lists_take: Callable[[float], None]
) -> None:
    lists_take(2.0)
    index = measured(find_kernel().name, processor="Another 9000")
    release = open_release(make_draft(items=200, spec=IVF, index=index))
    assert isinstance(release.retriever.index, FlatIndex)
    assert release.search.log_fields()["tuned_on"] == "Another 9000"


def test_it_is_measured_on_this_machine(make_draft: MakeDraft) -> None:
    release = open_release(make_draft(items=200, spec=IVF, index=measured("another")))
    comparison = release.search.comparison
    assert comparison is not None
    assert 0 < comparison.lists_us < 1e6
    assert 0 < comparison.exact_us < 1e6
    assert release.search.kind == comparison.served


def test_without_a_known_canary_the_lists_are_served(make_draft: MakeDraft) -> None:
    release = open_release(make_draft(items=200, spec=IVF, index=measured("another"), canaries=()))
    assert isinstance(release.retriever.index, IvfIndex)
    assert release.search.comparison is None


def test_the_kernel_named_is_used(make_draft: MakeDraft) -> None:
    draft = make_draft(items=200, spec=IVF, index=measured("float32"))
    release = open_release(draft, kernel="float32")
    assert isinstance(release.retriever.index, IvfIndex)
    assert release.retriever.index.kernel.name == release.search.kernel == "float32"


def test_a_comparison_ends_in_time() -> None:
    """However slow the machine is, one request at least was timed with both."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((301, 8), dtype=np.float32)
    lists = build_index(vectors, IVF)
    assert isinstance(lists, IvfIndex)
    timed: list[ItemIndex] = []

    def timer(index: ItemIndex, request: NDArray[np.float32]) -> float:
        assert request.shape == (1, 3, 8)
        timed.append(index)
        return float(len(timed))

    interests = random.standard_normal((40, 3, 8), dtype=np.float32)
    assert compare_with_exact(lists, interests, 5, timer).served == "ivf"
    assert timed[:2] == [lists, lists.exact()]
    assert len(timed) <= 2 * 3 * 16


def test_an_old_manifest_names_no_kernel() -> None:
    document = measured(None).model_dump()
    for name in ("kernel", "processor"):
        document.pop(name)
    old = IndexMeasurement.model_validate(document)
    assert (old.kernel, old.processor) == (None, None)
