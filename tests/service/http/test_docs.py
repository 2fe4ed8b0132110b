"""The documentation is complete, matches the responses, and works offline."""

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from service.http.schemas.canary import CanaryReport
from service.http.schemas.common import ErrorBody
from service.http.schemas.histories import Accepted
from service.http.schemas.operations import Alive, Ready, ReleaseState, Reloaded
from service.http.schemas.recommend import Recommendations

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

AUTH_ERRORS = {"401", "403", "429"}
CHANGES = {"200", *AUTH_ERRORS, "408", "409", "413", "415", "422", "500", "503"}
ROUTES = {
    ("post", "/recommend"): {"200", *AUTH_ERRORS, "408", "413", "415", "422", "500", "503"},
    ("post", "/events"): {"200", *AUTH_ERRORS, "408", "413", "415", "422", "500", "503"},
    ("post", "/recommend/batch"): {"200", *AUTH_ERRORS, "408", "413", "415", "422", "500", "503"},
    ("get", "/items/{item_id}/similar"): {"200", *AUTH_ERRORS, "404", "422", "500", "503"},
    ("get", "/users/{user_id}/history"): {"200", *AUTH_ERRORS, "422", "500", "503"},
    ("delete", "/users/{user_id}/history"): {"200", *AUTH_ERRORS, "422", "500", "503"},
    ("get", "/items/{item_id}"): {"200", *AUTH_ERRORS, "404", "422", "500", "503"},
    ("put", "/items/{item_id}"): CHANGES,
    ("put", "/items"): CHANGES,
    ("post", "/items"): CHANGES,
    ("get", "/items"): {"200", *AUTH_ERRORS, "422", "500"},
    ("get", "/livez"): {"200", "422", "500"},
    ("get", "/readyz"): {"200", "422", "500", "503"},
    ("get", "/release"): {"200", *AUTH_ERRORS, "422", "500"},
    ("get", "/canary"): {"200", *AUTH_ERRORS, "422", "500", "503"},
    ("get", "/metrics"): {"200", "401", "422", "429"},
    ("post", "/admin/reload"): {"200", *AUTH_ERRORS, "409", "422", "500", "503"},
}


async def openapi(serve: Serve, **changes: Any) -> dict[str, Any]:
    async with serve(**changes) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "openapi.json" in page.text
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
        return document


async def test_every_route_and_status_is_documented(serve: Serve) -> None:
    paths = (await openapi(serve, admin_key="k"))["paths"]

    assert {
        (method, path): set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    } == ROUTES
    assert all(operation["description"] for path in paths.values() for operation in path.values())


async def test_there_is_no_admin_route_without_an_admin_key(serve: Serve) -> None:
    assert "/admin/reload" not in (await openapi(serve))["paths"]


async def test_all_errors_have_the_same_body(serve: Serve) -> None:
    paths = (await openapi(serve, admin_key="k"))["paths"]
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}


async def test_bodies_are_documented_with_their_limits(serve: Serve) -> None:
    document = await openapi(serve)
    schemas = document["components"]["schemas"]
    request = schemas["RecommendRequest"]

    assert request["additionalProperties"] is False
    assert request["properties"]["k"]["default"] == 50
    assert request["properties"]["k"]["minimum"] == 1
    assert request["properties"]["k"]["maximum"] == 1000
    assert request["properties"]["sequence"]["anyOf"][0]["maxItems"] == 1000
    body = document["paths"]["/events"]["post"]["requestBody"]["content"]["application/json"]
    event, events = body["schema"]["oneOf"]
    assert event == events["items"] == {"$ref": "#/components/schemas/Event"}
    assert events["maxItems"] == 1000
    assert set(schemas["Event"]["required"]) == {"user_id", "item_id"}


async def test_responses_match_the_documented_models(serve: Serve) -> None:
    headers = {"authorization": "Bearer k"}
    event = {"user_id": "anna", "item_id": "item-1"}
    async with serve(admin_key="k") as client:
        responses: list[tuple[httpx.Response, type[BaseModel]]] = [
            (await client.post("/events", json=event), Accepted),
            (await client.post("/recommend", json={"user_id": "anna"}), Recommendations),
            (await client.post("/recommend", json={"sequence": []}), Recommendations),
            (await client.get("/livez"), Alive),
            (await client.get("/readyz"), Ready),
            (await client.get("/release"), ReleaseState),
            (await client.get("/canary"), CanaryReport),
            (await client.post("/admin/reload", headers=headers), Reloaded),
            (await client.post("/admin/reload"), ErrorBody),
            (await client.get("/nothing"), ErrorBody),
        ]

    for response, model in responses:
        model.model_validate_json(response.content, strict=True, extra="forbid")


async def test_the_page_loads_nothing_from_other_hosts(serve: Serve) -> None:
    async with serve() as client:
        page = await client.get("/docs")

    assert re.findall(r"https?://", page.text) == []
    assert "http" not in page.headers["content-security-policy"]
    urls = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert sorted(urls) == ["/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "data:,"]


@pytest.mark.parametrize(
    ("url", "content_type", "content"),
    [
        ("/docs/swagger-ui-bundle.js", "text/javascript", "SwaggerUIBundle"),
        ("/docs/swagger-ui.css", "text/css", ".swagger-ui"),
    ],
)
async def test_the_files_of_the_page_are_served_without_a_key(
    serve: Serve, tmp_path: Path, url: str, content_type: str, content: str
) -> None:
    keys_file = tmp_path / "keys"
    keys_file.write_text(f"read {sha256(b'key').hexdigest()}\n")
    async with serve(keys_file=keys_file) as client:
        response = await client.get(url)
        protected = await client.get("/release")

    assert protected.status_code == 401
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == content_type
    assert "max-age=604800" in response.headers["cache-control"]
    assert content in response.text
    assert len(response.content) == int(response.headers["content-length"]) > 100_000
