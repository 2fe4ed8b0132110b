"""How a release is searched here: an index tuned on another processor can be slower than exact."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from index.ann.comparison import Comparison, compare_with_exact
from index.ann.ivf import IvfIndex
from index.ann.kernels import Kernel
from index.ann.processor import processor_name
from index.ann.spec import IndexMeasurement
from index.release.manifest import Canary
from index.retrieval.retriever import Retriever


@dataclass(frozen=True)
class ServedSearch:
    """kernel: of the products here. tuned_with, tuned_on: kernel and processor of the building
    machine, if known.

    kind: of the index that is served: flat, if lists were compared and are slower than that.
    """

    kernel: str
    kind: str
    tuned_with: str | None = None
    tuned_on: str | None = None
    comparison: Comparison | None = None

    def log_fields(self) -> dict[str, str | float]:
        fields: dict[str, str | float] = {"kernel": self.kernel, "index": self.kind}
        if self.tuned_with != self.kernel:
            fields["tuned_with"] = self.tuned_with or "unknown"
        if self.tuned_on != processor_name():
            fields["tuned_on"] = self.tuned_on or "unknown"
        if self.comparison is not None:
            fields["lists_us"] = round(self.comparison.lists_us, 1)
            fields["exact_us"] = round(self.comparison.exact_us, 1)
        return fields


def serve_faster(
    measurement: IndexMeasurement, retriever: Retriever, kernel: Kernel, canaries: Sequence[Canary]
) -> tuple[Retriever, ServedSearch]:
    """The retriever with the faster index, if its lists were tuned elsewhere: with another kernel,
    or on another processor.

    Timed with the interests of the canary queries; without one, the lists stay.
    """
    index, tuned_with, tuned_on = retriever.index, measurement.kernel, measurement.processor
    kept = ServedSearch(kernel.name, measurement.spec.kind, tuned_with, tuned_on)
    is_tuned_here = (tuned_with, tuned_on) == (kernel.name, processor_name())
    if is_tuned_here or not isinstance(index, IvfIndex):
        return retriever, kept
    histories = [retriever.catalog.rows(canary.history) for canary in canaries]
    known = [[row for row in history if row] for history in histories]
    known = [history for history in known if history]
    if not known:
        return retriever, kept
    comparison = compare_with_exact(index, retriever.encode(known), measurement.k)
    served = replace(kept, kind=comparison.served, comparison=comparison)
    if comparison.served == "flat":
        retriever = replace(retriever, index=index.exact())
    return retriever, served
