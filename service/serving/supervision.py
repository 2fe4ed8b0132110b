"""Background tasks that go on after any exception, which is counted, logged and alarmed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.telemetry.metrics import Metrics, TaskName

# A task that fails again and again must not fill the log, nor wait long once its cause is gone.
_RETRY_S = 1.0

log = logging.getLogger(__name__)


Work = Callable[[], Awaitable[None]]


class EndedError(Exception):
    """A task that runs for ever has returned."""


async def run_for_ever(
    name: TaskName, work: Work, metrics: Metrics, retry_s: float = _RETRY_S
) -> None:
    """Run the work, and again whenever it ends, until this task is cancelled.

    Also when it ends with a CancelledError that nobody asked for, as a library may raise.
    """
    task = asyncio.current_task()
    assert task is not None, "not in a task; this is a bug"
    while True:
        try:
            await work()
            raise EndedError
        except asyncio.CancelledError as error:
            if task.cancelling():
                raise
            _record(name, error, metrics)
        except Exception as error:
            _record(name, error, metrics)
        await asyncio.sleep(retry_s)


def _record(name: TaskName, error: BaseException, metrics: Metrics) -> None:
    metrics.task_failures[name].inc()
    log.error("background task failed, starts again", extra={"task": name}, exc_info=error)
