"""A reader that does not read makes nobody wait: lines are dropped and counted."""

import json
import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest

from service.telemetry.logs import configure_logs
from service.telemetry.metrics import Metrics
from service.telemetry.output import LineWriter
from tests.service.command_line import logs_of_its_own

LINE = "x" * 99 + "\n"
MORE_THAN_A_PIPE_HOLDS = 3000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.set_blocking(reading, False)
    try:
        while os.read(reading, 1 << 20):
            pass
    except BlockingIOError:
        pass
    os.close(reading)


def read_until(reading: int, end: bytes) -> bytes:
    text = b""
    while not text.endswith(end):
        text += os.read(reading, 1 << 20)
    return text


def test_lines_are_dropped_and_counted_while_nobody_reads(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    metrics = Metrics()
    writer = LineWriter(writing, lambda lines: f"{lines} dropped\n", max_lines=100)
    start = time.perf_counter()
    for _ in range(MORE_THAN_A_PIPE_HOLDS):
        writer.write(LINE)
    writer.flush()
    writer.drain(0.01)
    assert time.perf_counter() - start < 5

    timer = threading.Timer(0.5, writer.write, ["the end\n"])
    timer.start()
    text = read_until(reading, b"the end\n").decode()
    timer.join()
    lines = text.splitlines(keepends=True)
    dropped = sum(int(line.split()[0]) for line in lines if "dropped" in line)
    assert dropped > 1000
    assert lines.count(LINE) == MORE_THAN_A_PIPE_HOLDS - dropped, "none lost, none cut"
    [value] = [
        v for v in metrics.text().splitlines() if v.startswith(b"re4_dropped_log_lines_total")
    ]
    assert float(value.split()[1]) == dropped


def test_a_reader_that_has_gone_stops_nothing(pipe: tuple[int, int]) -> None:
    _, writing = pipe
    os.close(writing)
    writer, before = LineWriter(writing), LineWriter.total_dropped
    writer.write(LINE)
    writer.drain(10)
    assert LineWriter.total_dropped == before + 1


def test_the_log_says_how_many_lines_it_lacks(capfd: pytest.CaptureFixture[str]) -> None:
    with logs_of_its_own():
        configure_logs("info")
        [handler] = logging.getLogger().handlers
        writer = handler.stream  # type: ignore[attr-defined]
        writer._drop()
        logging.getLogger("service").info("it goes on")
    dropped, after = map(json.loads, capfd.readouterr().err.splitlines())
    assert (dropped["event"], dropped["lines"]) == ("log lines dropped", 1)
    assert after["event"] == "it goes on"
