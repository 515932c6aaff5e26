"""GitHub's own description of its API, against which each request and answer is held."""

from __future__ import annotations

import copy
import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

__all__ = ["MISSING", "example", "faults_of_answer", "faults_of_request", "is_there", "template"]

PLACE = Path(__file__).parents[4] / "shared" / "data" / "github-openapi-subset.json.gz"
MISSING = f"GitHub's OpenAPI description is not at {PLACE}; nothing was held against it"
_ROOT = "urn:github"
# In GitHub's documentation, and not in the part of the description that is at hand.
_BEYOND = re.compile(
    r"/orgs/[^/]+/installation"
    r"|/repos/[^/]+/[^/]+/collaborators/[^/]+/permission"
    r"|/repos/[^/]+/[^/]+/actions/(jobs|runs)/[^/]+/rerun"
    r"|/repos/[^/]+/[^/]+/branches/.+"
    r"|/orgs/[^/]+/repos"
    r"|/installation/repositories"
    r"|/actions/runner-registration"
)


def is_there() -> bool:
    return PLACE.exists()


def template(component: str) -> dict[str, Any]:
    """An example answer of the description, for what a test does not care about."""
    found = example(component)
    return found if isinstance(found, dict) else {}


def example(component: str) -> Any:
    """The same, also of answers that are lists."""
    if not is_there():
        return {}
    return copy.deepcopy(_document()["components"]["examples"][component]["value"])


def faults_of_request(method: str, path: str, query: dict[str, str], body: Any) -> list[str]:
    if not is_there() or _BEYOND.fullmatch(path):
        return []
    found = _operation(method, path)
    if found is None:
        return [f"{method} {path} is not in the description"]
    pointer, operation = found
    names = {_resolved(item)["name"] for item in operation.get("parameters", ())}
    faults = [f"{method} {path}: unknown parameter {name}" for name in query if name not in names]
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        if body is None and operation["requestBody"].get("required"):
            return [*faults, f"{method} {path}: the body is missing"]
        if body is not None:
            where = f"{pointer}/requestBody/content/application~1json/schema"
            faults += _faults(where, body, f"{method} {path}")
    elif body is not None:
        faults.append(f"{method} {path}: takes no body")
    return faults


def faults_of_answer(method: str, path: str, status: int, body: Any) -> list[str]:
    if not is_there() or _BEYOND.fullmatch(path) or status in {304, 401, 403, 429} or status >= 500:
        return []
    found = _operation(method, path)
    if found is None or status == 404:
        return []
    pointer, operation = found
    answers = operation["responses"]
    if str(status) not in answers:
        known = status in {301, 307, 404, 422}
        return [] if known else [f"{method} {path}: answers {status}, of {sorted(answers)}"]
    answer = answers[str(status)]
    if "application/json" not in answer.get("content", {}):
        return []
    where = f"{pointer}/responses/{status}/content/application~1json/schema"
    return _faults(where, body, f"the answer {status} to {method} {path}")


def _faults(pointer: str, value: Any, what: str) -> list[str]:
    validator = _validator(pointer)
    return [
        f"{what}: {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in validator.iter_errors(value)
    ]


@cache
def _validator(pointer: str) -> Draft4Validator:
    return Draft4Validator({"$ref": f"{_ROOT}#{pointer}"}, registry=_registry())


@cache
def _registry() -> Registry[Any]:
    resource: Resource[Any] = DRAFT4.create_resource(_document())
    registry: Registry[Any] = Registry().with_resource(_ROOT, resource)
    return registry


@cache
def _document() -> dict[str, Any]:
    with gzip.open(PLACE) as stream:
        document: dict[str, Any] = json.load(stream)
    for part in ("paths", "components", "x-webhooks"):
        document[part] = _with_null(document[part])
    return document


def _with_null(node: Any) -> Any:
    """OpenAPI 3.0's `nullable`, which JSON Schema does not know."""
    if isinstance(node, list):
        return [_with_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _with_null(item) for key, item in node.items() if key != "nullable"}
    if node.get("nullable") is not True:
        return made
    return {"anyOf": [made, {"type": "null"}]}


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = _document()
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        node = found
    return node


@cache
def _routes() -> list[tuple[re.Pattern[str], str]]:
    def pattern(path: str) -> re.Pattern[str]:
        # `path` and `ref` may have slashes; the longest literal comes first.
        text = re.sub(r"\\\{(path|ref)\\\}", "(.+)", re.escape(path))
        return re.compile(re.sub(r"\\\{\w+\\\}", "([^/]+)", text))

    paths = sorted(_document()["paths"], key=lambda path: (path.count("{"), -len(path)))
    return [(pattern(path), path) for path in paths]


def _operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    for pattern, name in _routes():
        operation = _document()["paths"][name].get(method.lower())
        if operation is not None and pattern.fullmatch(path):
            escaped = name.replace("~", "~0").replace("/", "~1").replace("{", "%7B")
            return f"/paths/{escaped.replace('}', '%7D')}/{method.lower()}", operation
    return None
