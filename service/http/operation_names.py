"""How an operation is called in the OpenAPI document: its id, its tag, and one line about it."""

from collections.abc import Callable
from inspect import getdoc
from typing import Any

# By the first part of the path; everything else is an operation of the service itself.
_TAGS = {"recommend": "recommendations", "items": "items", "events": "users", "users": "users"}
_OPERATIONS = "operations"

TAGS = [
    {"name": "recommendations", "description": "Candidates for a user or a sequence."},
    {"name": "items", "description": "The items of the shop."},
    {"name": "users", "description": "Events and histories of users."},
    {"name": _OPERATIONS, "description": "Health, releases and metrics of the service."},
]


def operation_names(method: str, path: str, endpoint: Callable[..., Any]) -> dict[str, Any]:
    """Arguments of FastAPI's add_api_route.

    The id is the method and the parts of the path, one item of a collection in the singular:
    `GET /users/{user_id}/history` is `get_user_history`.
    """
    parts = path.strip("/").split("/")
    words = [
        part.removesuffix("s") if following.startswith("{") else part
        for part, following in zip(parts, [*parts[1:], ""], strict=True)
        if not part.startswith("{")
    ]
    return {
        "operation_id": "_".join([method.lower(), *words]),
        "tags": [_TAGS.get(parts[0], _OPERATIONS)],
        "summary": (getdoc(endpoint) or "").partition("\n")[0].rstrip("."),
    }
