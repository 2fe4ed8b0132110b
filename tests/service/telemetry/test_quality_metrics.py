"""What a table of gauges does not show any more is gone, in one process and in several."""

import math
from pathlib import Path

import pytest

from service.telemetry.metrics import Metrics
from service.telemetry.quality_metrics import GaugeTable


def table() -> tuple[Metrics, GaugeTable]:
    metrics = Metrics()
    return metrics, GaugeTable(metrics, "rates", "Rates.", ("interest",))


def test_labels_that_are_not_shown_any_more_are_removed() -> None:
    metrics, rates = table()
    rates.show({("all",): 0.5, ("1",): 0.1})
    rates.show({("all",): 0.25})
    samples = [line for line in metrics.text().decode().splitlines() if line.startswith("rates")]
    assert samples == ['rates{interest="all"} 0.25']


def test_in_files_of_several_workers_they_are_no_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metrics, rates = table()
    monkeypatch.setattr(rates, "_can_remove", False)
    rates.show({("all",): 0.5})
    rates.show({})
    value = metrics.registry.get_sample_value("rates", {"interest": "all"})
    assert value is not None
    assert math.isnan(value)
