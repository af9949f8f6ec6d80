"""The OpenAPI document, made of what the endpoints are made of: it cannot say anything else than they do."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import msgspec
from starlette.responses import Response

from jetflow.dashboard.api import ENDPOINTS
from jetflow.dashboard.endpoints import Endpoint

_PATH_PART: Final = re.compile(r"{(\w+)(?::\w+)?}")
_REF: Final = "#/components/schemas/{name}"


@cache
def document() -> dict[str, Any]:
    """Return the description of the API, as JSON."""
    shapes = [shape for endpoint in ENDPOINTS for shape in (endpoint.body, _answer(endpoint)) if shape is not None]
    schemas, components = msgspec.json.schema_components(shapes, ref_template=_REF)
    by_shape = dict(zip(map(repr, shapes), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        path = "/" + _PATH_PART.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, by_shape)
    return {
        "openapi": "3.1.0",
        "info": {"title": "jetflow dashboard", "version": version("jetflow-nats")},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _answer(endpoint: Endpoint) -> Any:
    return None if endpoint.answer is Response else endpoint.answer


def _operation(endpoint: Endpoint, by_shape: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": endpoint.summary}
    if _answer(endpoint) is not None:
        answer["content"] = {"application/json": {"schema": by_shape[repr(endpoint.answer)]}}
    told: dict[str, Any] = {
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint)],
        "responses": {
            str(endpoint.status): answer,
            "default": {"description": "What was refused, and what to do", "content": {"application/problem+json": {}}},
        },
    }
    if endpoint.body is not None:
        schema = by_shape[repr(endpoint.body)]
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PART.findall(endpoint.path)
    ]


def _query_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    [_], components = msgspec.json.schema_components([endpoint.query], ref_template=_REF)
    properties = components[endpoint.query.__name__]["properties"]
    return [
        {
            "name": "meta.{name}" if name == "meta" else name,
            "in": "query",
            "required": name in components[endpoint.query.__name__].get("required", ()),
            "schema": schema,
        }
        for name, schema in properties.items()
    ]
