"""The examples of the documentation: each request is sent, and answered as the document says."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import jsonschema_rs
import pytest

KEY = "sesam-open-up"
JSON = "application/json"


@pytest.fixture(scope="module")
def client(server_url: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server_url, headers=headers, timeout=30) as client:
        for row in (1, 2):
            event = {"user_id": "anna", "item_id": f"item-{row}"}
            assert client.post("/events", json=event).status_code == 200
        yield client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name: str = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def examples(document: dict[str, Any], schema: dict[str, Any]) -> list[Any]:
    """Those of a schema, or of each that it is one of."""
    found = resolve(document, schema)
    parts = [] if "examples" in found else found.get("oneOf", [])
    return [*found.get("examples", []), *(e for part in parts for e in examples(document, part))]


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.validator_for(whole).validate(value)


def asked(
    document: dict[str, Any], path: str, operation: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Path, query and body of each request that the examples make."""
    query: dict[str, Any] = {}
    for parameter in operation.get("parameters", []):
        [value] = parameter["schema"]["examples"]
        check(document, parameter["schema"], value)
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(value, safe=""))
        else:
            query[parameter["name"]] = value
    if "requestBody" not in operation:
        yield path, query, None
        return
    schema = operation["requestBody"]["content"][JSON]["schema"]
    bodies = examples(document, schema)
    assert bodies, f"{path}: no example"
    for body in bodies:
        # Of a batch: one that shows what becomes of a bad request holds one.
        if "requests" not in body:
            check(document, schema, body)
        yield path, query, body


def test_every_request_is_answered_as_documented(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    sent = 0
    for method, path, operation in operations(document):
        content = operation["responses"]["200"]["content"]
        for url, query, body in asked(document, path, operation):
            response = client.request(method, url, params=query, json=body)
            assert response.status_code == 200, (method, url, response.text)
            [(media_type, described)] = content.items()
            assert response.headers["content-type"] == media_type
            if media_type == JSON:
                check(document, described["schema"], response.json())
            sent += 1
    assert sent >= 12


def test_every_answer_has_an_example_of_its_shape(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            [(media_type, described)] = response["content"].items()
            if media_type != JSON:
                assert described["example"], (method, path)
                continue
            shown = examples(document, described["schema"])
            assert shown, (method, path, status)
            for example in shown:
                check(document, described["schema"], example)
