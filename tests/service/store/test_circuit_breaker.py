"""What keeps failing is left alone, and tried again now and then."""

from service.store.circuit_breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(failures=2, pause_s=10, clock=clock)
    breaker.failed()
    breaker.failed()
    return breaker


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(failures=2, pause_s=10, clock=Clock())
    for _ in range(3):
        breaker.failed()
        breaker.succeeded()
    breaker.failed()

    assert breaker.admits()
    breaker.failed()
    assert not breaker.admits()


def test_while_open_it_admits_one_trial_each_pause() -> None:
    clock = Clock()
    breaker = opened(clock)

    clock.now += 9.9
    assert not breaker.admits()
    clock.now += 0.1
    assert breaker.admits()
    assert not breaker.admits(), "the trial is under way"
    clock.now += 10
    assert breaker.admits(), "a trial that was never reported does not close it for ever"


def test_a_good_trial_closes_it_and_a_bad_one_does_not() -> None:
    clock = Clock()
    breaker = opened(clock)

    clock.now += 10
    assert breaker.admits()
    breaker.failed()
    assert not breaker.admits()
    clock.now += 10
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.admits()
    assert breaker.admits()
