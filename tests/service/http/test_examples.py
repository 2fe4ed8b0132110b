"""The examples in the documentation: each request is sent, and the response validated."""

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
    openapi: dict[str, Any] = client.get("/openapi.json").json()
    return openapi


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name: str = schema.get("$ref", "").rpartition("/")[2]
    resolved: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return resolved


def examples(document: dict[str, Any], schema: dict[str, Any]) -> list[Any]:
    """The examples of a schema, or of each variant of a oneOf."""
    resolved = resolve(document, schema)
    variants = [] if "examples" in resolved else resolved.get("oneOf", [])
    return [
        *resolved.get("examples", []),
        *(e for variant in variants for e in examples(document, variant)),
    ]


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    standalone = {**schema, "components": document["components"]}
    jsonschema_rs.validator_for(standalone).validate(value)


def requests(
    document: dict[str, Any], path: str, operation: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Path, query and body of each example request."""
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
        # The example of a batch contains an invalid request, to show its error.
        if "requests" not in body:
            check(document, schema, body)
        yield path, query, body


def test_every_example_request_gets_the_documented_response(
    client: httpx.Client, document: dict[str, Any]
) -> None:
    sent = 0
    for method, path, operation in operations(document):
        content = operation["responses"]["200"]["content"]
        for url, query, body in requests(document, path, operation):
            response = client.request(method, url, params=query, json=body)
            assert response.status_code == 200, (method, url, response.text)
            [(media_type, media)] = content.items()
            assert response.headers["content-type"] == media_type
            if media_type == JSON:
                check(document, media["schema"], response.json())
            sent += 1
    assert sent >= 12


def test_every_response_has_a_valid_example(client: httpx.Client, document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            [(media_type, media)] = response["content"].items()
            if media_type != JSON:
                assert media["example"], (method, path)
                continue
            found = examples(document, media["schema"])
            assert found, (method, path, status)
            for example in found:
                check(document, media["schema"], example)
