"""What Redis does and does not do for this process, by operation, with the reason of a failure."""

import logging
import time

from redis.exceptions import ResponseError

from service.store.redis_errors import Reason, error_name, reason_of
from service.telemetry.metrics import Metrics

_REJECTION_LOG_INTERVAL_S = 60.0
_MEMORY_S = 30.0  # for which a failure is reported that neither happens again nor ends

log = logging.getLogger(__name__)


class RedisHealth:
    """Counts and logs failures. up: whether the last call was answered."""

    def __init__(self, metrics: Metrics) -> None:
        self.up = False
        self._metrics = metrics
        self._failing: dict[str, tuple[Reason, float]] = {}
        self._logged: Reason | None = None
        self._next_rejection_log = 0.0

    @property
    def failing(self) -> dict[str, str]:
        """Operation -> why it fails now, in words without secrets."""
        oldest = time.monotonic() - _MEMORY_S
        return {
            operation: f"{reason.code}: {reason.text}"
            for operation, (reason, at) in self._failing.items()
            if at >= oldest
        }

    def record_success(self, operation: str) -> None:
        for ended in (operation, "start", "trial"):
            self._failing.pop(ended, None)
        if not self.up:
            log.info("history store answers")
            self._logged = None
        self._set_up(True)

    def record_failure(self, operation: str, error: Exception) -> bool:
        """Returns whether Redis is down, rather than up and rejecting this command."""
        name, reason = error_name(error), reason_of(error)
        self._metrics.redis_failures.labels(operation, name).inc()
        self._failing[operation] = reason, time.monotonic()
        facts = {"operation": operation, "error": name, "reason": reason.code, "why": reason.text}
        if isinstance(error, ResponseError):
            if (now := time.monotonic()) >= self._next_rejection_log:
                self._next_rejection_log = now + _REJECTION_LOG_INTERVAL_S
                log.warning("history store refuses", extra=facts)
            return False
        if self.up or reason != self._logged:
            log.warning("history store fails", extra=facts)
            self._logged = reason
        self._set_up(False)
        return True

    def _set_up(self, up: bool) -> None:
        self.up = up
        self._metrics.redis_up.set(up)
