"""The OpenAPI description holds what the app does, whatever is thrown at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from smidr_ci.api.callers import Scope
from smidr_ci.builds.model import BuildRecord
from smidr_ci.home import Home
from tests.fakes.http_agent import HttpAgent
from tests.unit.api.test_http_routes import ORDER, ask

OPERATIONS = (
    "GET /api/v1/agent",
    "POST /api/v1/agent/drain",
    "POST /api/v1/agent/stop",
    "POST /api/v1/purge",
    "GET /api/v1/builds",
    "POST /api/v1/builds",
    "GET /api/v1/builds/{build_id}",
    "DELETE /api/v1/builds/{build_id}",
    "GET /api/v1/builds/{build_id}/status",
    "POST /api/v1/builds/{build_id}/cancel",
    "GET /api/v1/builds/{build_id}/watch",
    "GET /api/v1/builds/{build_id}/log",
    "GET /api/v1/builds/{build_id}/artifacts",
    "GET /api/v1/builds/{build_id}/artifacts/{path}",
    "GET /api/v1/builds/{build_id}/summary",
    "POST /start_build",
    "GET /healthz",
    "GET /readyz",
    "GET /metrics",
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpAgent]:
    home: Path = tmp_path_factory.mktemp("home")
    home.chmod(0o700)
    with HttpAgent(Home(home)) as agent:
        yield agent


@pytest.fixture(scope="module")
def described(served: HttpAgent) -> dict[str, Any]:
    document = ask(served, "GET", "/api/v1/openapi.json").json
    assert isinstance(document, dict)
    return document


def a_finished_build(served: HttpAgent) -> BuildRecord:
    served.agent.is_draining = False  # an earlier operation may have asked for it
    build_id = ask(served, "POST", "/api/v1/builds", ORDER).json["build_id"]
    served.log(build_id, b"a line\n" * 100)
    record = served.agent.store.get(build_id)
    served.leave_artifacts(record, {"image": b"abc" * 100})
    return served.agent.finish(build_id)


def operations_of(described: dict[str, Any]) -> dict[str, Any]:
    found: list[Any] = list(schemathesis.openapi.from_dict(described).get_all_operations())
    return {item.ok().label: item.ok() for item in found}


def test_the_description_names_every_operation(described: dict[str, Any]) -> None:
    assert sorted(operations_of(described)) == sorted(OPERATIONS)


def test_each_operation_says_what_it_does_and_how_it_fails(described: dict[str, Any]) -> None:
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["description"], path
            answer = operation["responses"]["503"]["content"]["application/json"]["schema"]
            assert answer["$ref"] in {"#/components/schemas/Error", "#/components/schemas/Ready"}
            is_open = path in {"/healthz", "/readyz"}
            assert bool(operation.get("security")) is not is_open, path


@pytest.mark.parametrize("label", OPERATIONS)
def test_nothing_that_is_sent_makes_the_agent_fail(
    served: HttpAgent, described: dict[str, Any], label: str
) -> None:
    operation = operations_of(described)[label]
    known = a_finished_build(served)
    secret = served.token(Scope.ADMIN)
    valid = operation.as_strategy(schemathesis.GenerationMode.POSITIVE)
    any_case = valid | operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)
    session = requests.Session()

    @BOUNDED
    @given(case=any_case, is_known=st.booleans())
    def attempt(case: Any, is_known: bool) -> None:
        served.agent.is_draining = False
        if is_known and "build_id" in case.path_parameters:
            case.path_parameters["build_id"] = known.build_id
            if "path" in case.path_parameters:
                case.path_parameters["path"] = "image"
        if case.headers:
            case.headers.pop("Authorization", None)  # schemathesis makes up wrong ones
        answer = case.call(
            base_url=served.url,
            session=session,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=30,
        )
        case.validate_response(answer, checks=CHECKS)

    with session:
        attempt()
    assert ask(served, "GET", "/healthz").status == 200
