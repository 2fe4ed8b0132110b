"""The standard process_* metrics of a service of several processes, as if it were one."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# The limit is of each process, so what is compared with it is the process nearest to it.
_COMBINE: dict[str, Callable[[Sequence[float]], float]] = {
    "process_start_time_seconds": min,
    "process_max_fds": min,
    "process_open_fds": max,
}


class ServiceProcesses(Collector):
    """Sums over the supervisor and its workers; of descriptors the most and of limits the least.

    Each process can read the others' numbers, so nothing is written for it.
    """

    def collect(self) -> Iterator[Metric]:
        supervisor = os.getppid()
        values: dict[str, list[float]] = defaultdict(list)
        metrics: dict[str, Metric] = {}
        for pid in (supervisor, *_workers()):
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                [sample] = metric.samples
                metrics[sample.name] = metric
                values[sample.name].append(sample.value)
        if "process_cpu_seconds_total" in values:
            values["process_cpu_seconds_total"].append(_ended_cpu_s(supervisor))
        for name, metric in metrics.items():
            [sample] = metric.samples
            combine = _COMBINE.get(name, sum)
            metric.samples = [sample._replace(value=combine(values[name]))]
            yield metric


def _workers() -> Iterator[int]:
    """The running workers: each has files of gauges, which the supervisor removes after its end."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    yield from {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}


def _ended_cpu_s(supervisor: int) -> float:
    """Processor time of the workers that have ended: without it, the counter would go back."""
    try:
        fields = Path(f"/proc/{supervisor}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    user, system = fields[13:15]  # cutime and cstime
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
