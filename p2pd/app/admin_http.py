"""Admin APIs: endpoints as data, served as JSON over HTTP, and described in OpenAPI.

Routes and document are made of the same endpoints, and the schemas of the classes that answers are made of
(p2pd.model.admin), so that neither can drift from what is served.

An answer is a JSON object. A stream is NDJSON: one object a line, empty fields left out, as things happen;
what fails after it has begun is its last line, {"event": "error", "error": "…"}.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from p2pd.io.serve import serve_unix
from p2pd.model.admin import ABOUT, Problem
from p2pd.model.errors import ConfigError, NotFound, OriginFault, P2pdError, UserMistake

__all__ = ["Endpoint", "admin_app", "document", "read_order", "serve_admin"]

log = structlog.get_logger()

Tell = Callable[[Any], Awaitable[None]]

_BODY_LIMIT = 256 * 1024
_NDJSON = "application/x-ndjson"
_SCALARS: dict[object, dict[str, object]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    dict: {"type": "object"},
}


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """`answer` and `order` are dataclasses; `dict` is any object.

    `call` is `async () -> answer`, with an order `async (order) -> answer`, and for a stream
    `async (order, tell) -> None`, where `tell` takes objects of the class `answer`.
    """

    method: str
    path: str
    summary: str
    answer: type
    call: Callable[..., Awaitable[Any]]
    order: type | None = None
    is_stream: bool = False


def admin_app(title: str, version: str, endpoints: Sequence[Endpoint]) -> ASGIApp:
    """The application: the endpoints, and /v1/openapi.json about them."""
    described = document(title, version, endpoints)

    async def openapi() -> dict[str, object]:
        return described

    own = Endpoint("GET", "/v1/openapi.json", "This API, described.", dict, openapi)
    routes: dict[str, dict[str, Endpoint]] = {}
    for endpoint in (*endpoints, own):
        routes.setdefault(endpoint.path, {})[endpoint.method] = endpoint

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        methods = routes.get(scope["path"])
        if methods is None:
            problem = f"there is no {scope['path'][:200]!a}; see /v1/openapi.json"
            await _problem(HTTPStatus.NOT_FOUND, problem)(scope, receive, send)
        elif scope["method"] not in methods:
            problem = f"{scope['path']} takes {', '.join(methods)} only"
            await _problem(HTTPStatus.METHOD_NOT_ALLOWED, problem)(scope, receive, send)
        else:
            await _answer(methods[scope["method"]], Request(scope, receive), send)

    return app


async def serve_admin(
    app: ASGIApp,
    socket: str,
    default: str,
    group: str,
    task_status: trio.TaskStatus[Path | None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve at a Unix socket. Raises ConfigError, but for the default one: a daemon runs without too."""
    try:
        await serve_unix(app, Path(socket), group=group, task_status=task_status)
    except ConfigError as error:
        if socket != default:
            raise
        log.warning("admin.off", reason=str(error))
        task_status.started(None)


async def _answer(endpoint: Endpoint, request: Request, send: Send) -> None:
    stream = _Stream(send)
    try:
        order = [read_order(endpoint.order, await _body(request))] if endpoint.order is not None else []
        if endpoint.is_stream:
            await endpoint.call(*order, stream.tell)
            await stream.end()
            return
        response = JSONResponse(_plain(await endpoint.call(*order)))
    except ClientDisconnect:
        return
    except P2pdError as error:
        if stream.is_begun:
            await stream.tell({"event": "error", "error": str(error)})
            await stream.end()
            return
        response = _problem(_status_of(error), str(error))
    await response(request.scope, request.receive, send)


class _Stream:
    """Lines to a client; the head goes out with the first."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_begun = False

    async def tell(self, event: object) -> None:
        await self._begin()
        fields = {key: value for key, value in _plain(event).items() if value is not None}
        line = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        await self._send({"type": "http.response.body", "body": line, "more_body": True})

    async def end(self) -> None:
        await self._begin()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self) -> None:
        if not self.is_begun:
            self.is_begun = True
            headers = [(b"content-type", _NDJSON.encode())]
            await self._send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": headers})


def read_order(cls: type, body: bytes) -> Any:
    """A request's body as the dataclass `cls`; an empty one is `{}`. Raises UserMistake."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise UserMistake("the body is not valid JSON") from error
    if not isinstance(found, dict):
        raise UserMistake("the body is not a JSON object")
    hints = typing.get_type_hints(cls)
    for name, value in found.items():
        if name not in hints:
            raise UserMistake(f"unknown field {name[:60]!a}; known are {', '.join(hints)}")
        if not _fits(value, hints[name]):
            raise UserMistake(f"field {name} is of the wrong type; see /v1/openapi.json")
    missing = [
        field.name for field in dataclasses.fields(cls) if _required(field) and field.name not in found
    ]
    if missing:
        raise UserMistake(f"field {missing[0]} is missing")
    return cls(**found)


def document(title: str, version: str, endpoints: Sequence[Endpoint]) -> dict[str, object]:
    """The OpenAPI 3.1 document."""
    schemas: dict[str, object] = {}
    paths: dict[str, dict[str, object]] = {}
    for endpoint in endpoints:
        kind = _NDJSON if endpoint.is_stream else "application/json"
        operation: dict[str, object] = {
            "summary": endpoint.summary,
            "responses": {
                "200": _content(
                    "One object a line." if endpoint.is_stream else "Done.", kind, endpoint.answer, schemas
                ),
                "default": _content("Why it failed.", "application/json", Problem, schemas),
            },
        }
        if endpoint.order is not None:
            operation["requestBody"] = {
                "content": {"application/json": {"schema": _schema(endpoint.order, schemas)}}
            }
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _content(description: str, kind: str, cls: type, schemas: dict[str, object]) -> dict[str, object]:
    return {"description": description, "content": {kind: {"schema": _schema(cls, schemas)}}}


def _schema(hint: Any, schemas: dict[str, object]) -> dict[str, object]:
    """JSON Schema of a type hint; dataclasses go to `schemas` by name."""
    if hint in _SCALARS:
        return _SCALARS[hint]
    if typing.get_origin(hint) is list:
        return {"type": "array", "items": _schema(typing.get_args(hint)[0], schemas)}
    if isinstance(hint, types.UnionType):
        [one] = [each for each in typing.get_args(hint) if each is not types.NoneType]
        return {"anyOf": [_schema(one, schemas), {"type": "null"}]}
    name = hint.__name__
    if name not in schemas:
        hints = typing.get_type_hints(hint)
        fields = dataclasses.fields(hint)
        schemas[name] = {
            "type": "object",
            "description": (hint.__doc__ or "").strip().partition("\n")[0],
            "properties": {
                field.name: {**_schema(hints[field.name], schemas), "description": field.metadata[ABOUT]}
                for field in fields
            },
            "required": [field.name for field in fields if _required(field)],
        }
    return {"$ref": f"#/components/schemas/{name}"}


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _fits(value: object, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(each, typing.get_args(hint)[0]) for each in value)
    return type(value) is hint


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def _status_of(error: P2pdError) -> HTTPStatus:
    if isinstance(error, UserMistake):
        return HTTPStatus.BAD_REQUEST
    if isinstance(error, NotFound):
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.BAD_GATEWAY if isinstance(error, OriginFault) else HTTPStatus.INTERNAL_SERVER_ERROR


def _problem(status: HTTPStatus, line: str) -> JSONResponse:
    return JSONResponse(dataclasses.asdict(Problem(line)), status)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > _BODY_LIMIT:
                raise UserMistake(f"the body is over {_BODY_LIMIT} bytes")
    return bytes(body)
