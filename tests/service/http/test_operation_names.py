"""Each operation has a name of its own, a tag, and a line that says what it does."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from service.http.operation_names import TAGS, operation_names

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


async def forget(_: object) -> None:
    """Delete the history. More is said here."""


async def test_operations_are_named_after_method_and_path() -> None:
    names = operation_names("DELETE", "/users/{user_id:id}/history", forget)
    assert names == {
        "operation_id": "delete_user_history",
        "tags": ["users"],
        "summary": "Delete the history. More is said here",
    }
    assert operation_names("GET", "/livez", forget)["tags"] == ["operations"]


async def test_every_operation_of_the_service_has_a_name_and_a_tag(serve: Serve) -> None:
    async with serve(admin_key="k") as client:
        document = (await client.get("/openapi.json")).json()
    operations = [each for path in document["paths"].values() for each in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert {"post_recommend", "put_item", "get_user_history"} <= set(names)
    assert document["tags"] == TAGS
    assert {tag for operation in operations for tag in operation["tags"]} == {
        tag["name"] for tag in TAGS
    }
    assert all(operation["summary"] for operation in operations)
