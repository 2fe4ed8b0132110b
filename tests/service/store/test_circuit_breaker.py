"""The circuit opens after consecutive failures, and a successful trial closes it."""

from service.store.circuit_breaker import CircuitBreaker
from tests.service.application import Clock


def open_breaker(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(threshold=2, cooldown_s=10, clock=clock)
    breaker.record_failure()
    breaker.record_failure()
    return breaker


def test_it_opens_after_consecutive_failures_only() -> None:
    breaker = CircuitBreaker(threshold=2, cooldown_s=10, clock=Clock(100.0))
    for _ in range(3):
        breaker.record_failure()
        breaker.record_success()
    breaker.record_failure()

    assert breaker.admits()
    breaker.record_failure()
    assert not breaker.admits()


def test_while_open_it_admits_one_trial_in_each_cooldown() -> None:
    clock = Clock(100.0)
    breaker = open_breaker(clock)

    clock.now += 9.9
    assert not breaker.admits()
    clock.now += 0.1
    assert breaker.admits()
    assert not breaker.admits(), "the trial is running"
    clock.now += 10
    assert breaker.admits(), "a trial without a result does not block later ones"


def test_a_successful_trial_closes_it_and_a_failed_one_does_not() -> None:
    clock = Clock(100.0)
    breaker = open_breaker(clock)

    clock.now += 10
    assert breaker.admits()
    breaker.record_failure()
    assert not breaker.admits()
    clock.now += 10
    assert breaker.admits()
    breaker.record_success()
    assert breaker.admits()
    assert breaker.admits()
