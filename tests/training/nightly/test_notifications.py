"""Notification by webhook and command."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.training.nightly.nightly_runs import FIRST_END, config_of
from training.nightly.run import run_nightly


class Receiver(BaseHTTPRequestHandler):
    """Fails for the first `failures` requests, then accepts messages."""

    failures = 0
    received: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        receiver = type(self)
        self.send_response(503 if receiver.failures else 204)
        if not receiver.failures:
            receiver.received.append(json.loads(body))
        receiver.failures -= bool(receiver.failures)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    handler = type("Handler", (Receiver,), {"received": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_any_failure_is_notified(folder, receiver, monkeypatch):
    url, handler = receiver
    monkeypatch.setattr("training.nightly.run.clean_up", lambda *_: 1 / 0)
    outcome = run_nightly(config_of(folder, webhook=url))
    assert (outcome.outcome, outcome.sentence) == ("failed", "ZeroDivisionError: division by zero")
    assert handler.received == [outcome.to_json()]


def test_a_webhook_is_retried_and_gets_the_outcome(folder, receiver):
    url, handler = receiver
    handler.failures = 2
    outcome = run_nightly(config_of(folder, until=FIRST_END, webhook=url))
    assert handler.received == [outcome.to_json()]


def test_a_command_gets_the_outcome_on_stdin(folder, tmp_path):
    out = tmp_path / "outcome.json"
    outcome = run_nightly(config_of(folder, until=FIRST_END, notification_command=f"tee {out}"))
    assert json.loads(out.read_text()) == outcome.to_json()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"webhook": "http://127.0.0.1:9/secret"}, "webhook at 127.0.0.1: 1 attempts failed"),
        ({"webhook": "no address"}, "webhook"),
        ({"notification_command": "false"}, "command: exited with 1"),
        (
            {"notification_command": "/no/such/program"},
            "command: could not be run (FileNotFoundError)",
        ),
        ({"notification_command": "sleep 60"}, "command: killed after 0.5 s"),
        ({"notification_command": "'"}, "command: could not be run (ValueError)"),
    ],
)
def test_a_failed_notification_does_not_fail_the_run(folder, settings, message):
    messages: list[str] = []
    config = config_of(
        folder, until=FIRST_END, webhook_attempts=1, notification_timeout_s=0.5, **settings
    )
    assert run_nightly(config, messages.append).exit_code == 4
    assert any(text.startswith(message) for text in messages), messages
    assert not any("secret" in text for text in messages)


def test_other_outcomes_are_not_notified(folder, receiver):
    url, handler = receiver
    run_nightly(config_of(folder, until=FIRST_END, webhook=url, notify_on=("failed",)))
    assert handler.received == []
