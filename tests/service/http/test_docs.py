"""The documentation that the service gives of itself is complete, and true of its answers."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from service.http.schemas.common import ErrorBody
from service.http.schemas.histories import Accepted
from service.http.schemas.operations import Alive, Ready, ReleaseState, Reloaded
from service.http.schemas.recommend import Recommendations

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

DOOR = {"401", "403", "429"}
ROUTES = {
    ("post", "/recommend"): {"200", *DOOR, "408", "413", "422", "500", "503"},
    ("post", "/events"): {"200", *DOOR, "408", "413", "422", "500", "503"},
    ("post", "/recommend/batch"): {"200", *DOOR, "408", "413", "422", "500", "503"},
    ("get", "/items/{item_id}/similar"): {"200", *DOOR, "404", "422", "500", "503"},
    ("get", "/users/{user_id}/history"): {"200", *DOOR, "422", "500", "503"},
    ("delete", "/users/{user_id}/history"): {"200", *DOOR, "422", "500", "503"},
    ("put", "/items/{item_id}"): {"200", *DOOR, "408", "413", "422", "500", "503"},
    ("get", "/livez"): {"200", "500"},
    ("get", "/readyz"): {"200", "500", "503"},
    ("get", "/release"): {"200", *DOOR, "500"},
    ("get", "/metrics"): {"200", "401", "429"},
    ("post", "/admin/reload"): {"200", *DOOR, "409", "500", "503"},
}


async def documented(serve: Serve, **changes: Any) -> dict[str, Any]:
    async with serve(**changes) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "openapi.json" in page.text
        document: dict[str, Any] = (await client.get("/openapi.json")).json()
        return document


async def test_every_route_and_status_is_documented(serve: Serve) -> None:
    paths = (await documented(serve, admin_key="k"))["paths"]

    assert {
        (method, path): set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    } == ROUTES
    assert all(operation["description"] for path in paths.values() for operation in path.values())


async def test_without_a_key_there_is_no_admin_route(serve: Serve) -> None:
    assert "/admin/reload" not in (await documented(serve))["paths"]


async def test_every_error_has_the_one_shape(serve: Serve) -> None:
    paths = (await documented(serve, admin_key="k"))["paths"]
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorBody"}


async def test_bodies_are_documented_with_their_limits(serve: Serve) -> None:
    document = await documented(serve)
    schemas = document["components"]["schemas"]
    asked = schemas["RecommendRequest"]

    assert asked["additionalProperties"] is False
    assert asked["properties"]["k"]["default"] == 50
    assert asked["properties"]["k"]["minimum"] == 1
    assert asked["properties"]["k"]["maximum"] == 1000
    assert asked["properties"]["sequence"]["anyOf"][0]["maxItems"] == 1000
    body = document["paths"]["/events"]["post"]["requestBody"]["content"]["application/json"]
    one, several = body["schema"]["oneOf"]
    assert one == several["items"] == {"$ref": "#/components/schemas/Event"}
    assert several["maxItems"] == 1000
    assert set(schemas["Event"]["required"]) == {"user_id", "item_id"}


async def test_answers_are_what_is_documented(serve: Serve) -> None:
    headers = {"authorization": "Bearer k"}
    event = {"user_id": "anna", "item_id": "item-1"}
    async with serve(admin_key="k") as client:
        answers: list[tuple[httpx.Response, type[BaseModel]]] = [
            (await client.post("/events", json=event), Accepted),
            (await client.post("/recommend", json={"user_id": "anna"}), Recommendations),
            (await client.post("/recommend", json={"sequence": []}), Recommendations),
            (await client.get("/livez"), Alive),
            (await client.get("/readyz"), Ready),
            (await client.get("/release"), ReleaseState),
            (await client.post("/admin/reload", headers=headers), Reloaded),
            (await client.post("/admin/reload"), ErrorBody),
            (await client.get("/nothing"), ErrorBody),
        ]

    for response, model in answers:
        model.model_validate_json(response.content, strict=True, extra="forbid")
