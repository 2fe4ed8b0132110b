"""JSON responses, and the response to an error."""

from typing import Any

import orjson
from starlette.responses import Response

from service.errors import to_response


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def error_response(error: Exception) -> Response:
    """The response to any error: the service's, the framework's, or a bug."""
    response = to_response(error)
    return json_response(response.body, response.status, response.headers)
