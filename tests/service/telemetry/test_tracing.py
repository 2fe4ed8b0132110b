"""Traces: a span for the request and one for each stage; off by default."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"user_id": "secret-user", "sequence": ["item-1"]}


def parse(text: str) -> list[dict[str, Any]]:
    """The concatenated JSON objects."""
    decoder, spans = json.JSONDecoder(), []
    while text := text.lstrip():
        span, end = decoder.raw_decode(text)
        spans.append(span)
        text = text[end:]
    return spans


@pytest.mark.anyio
async def test_a_request_and_its_stages_are_traced(
    serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
    async with serve(tracing="console") as client:
        assert (await client.post("/recommend", json=BODY, headers=headers)).status_code == 200
        await client.get("/livez", headers={"traceparent": "nonsense"})
    output = capfd.readouterr().out
    *traced, livez = parse(output)
    spans = {span["name"]: span for span in traced}

    assert set(spans) == {"POST /recommend", "history", "queue", "encode", "search", "merge"}
    request = spans.pop("POST /recommend")
    assert request["parent_id"] == f"0x{PARENT}"
    assert request["attributes"] == {"http.response.status_code": 200, "request.id": "mine"}
    for span in spans.values():
        assert span["context"]["trace_id"] == f"0x{TRACE}"
        assert span["parent_id"] == request["context"]["span_id"]
        assert (
            request["start_time"] <= span["start_time"] <= span["end_time"] <= request["end_time"]
        )
    assert "secret" not in output
    assert livez["name"] == "GET /livez"
    assert livez["parent_id"] is None


class Collector(BaseHTTPRequestHandler):
    """Collects the names of the spans that it receives."""

    names: list[str] = []  # noqa: RUF012

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.names.extend(span.name for span in scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.anyio
async def test_traces_reach_the_collector_before_shutdown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        async with serve(tracing="otlp") as client:
            await client.post("/recommend", json=BODY)
        collector.shutdown()
        thread.join()

    assert "POST /recommend" in Collector.names
    assert "search" in Collector.names


def test_opentelemetry_is_needed_only_for_tracing() -> None:
    program = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk'] = None\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        "create_app(Settings(releases='/tmp', redis_url='redis://nowhere'))\n"
        "create_app(Settings(releases='/tmp', redis_url='redis://nowhere', tracing='console'))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "SetupError: --tracing: opentelemetry.sdk" in result.stderr
    assert "pip install 're4[tracing]'" in result.stderr
