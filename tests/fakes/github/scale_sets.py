"""The fake's service behind runner scale sets: registration, CRUD, sessions, queue, agents."""

from __future__ import annotations

import base64
import itertools
import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.fakes.github.routes import Answer, Asked
from tests.fakes.github.state import stamp

if TYPE_CHECKING:
    from tests.fakes.github.server import GitHubServer

__all__ = ["QUEUE", "TENANT", "FakeScaleSet", "FakeScaleSets"]

TENANT = "/_services/pipelines/tenant1"
QUEUE = "/_services/queue/scalesets/message"
_UNSET = "0001-01-01T00:00:00Z"
_AGENT_KEYS = (
    "system",
    "version",
    "commit_sha",
    "scale_set_id",
    "subsystem",
    "build_version",
    "kind",
)
_Handler = Callable[["FakeScaleSets", Asked, Any], Answer]
_ROUTES: list[tuple[str, re.Pattern[str], _Handler]] = []


def _route(method: str, pattern: str) -> Callable[[_Handler], _Handler]:
    def add(function: _Handler) -> _Handler:
        _ROUTES.append((method, re.compile(pattern), function))
        return function

    return add


@dataclass
class FakeScaleSet:
    """One, with its queue."""

    number: int
    body: dict[str, Any]
    messages: dict[int, dict[str, Any]] = field(default_factory=dict)
    session: dict[str, Any] | None = None
    totals: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("available", "acquired", "assigned", "running"), 0)
    )
    acquirable: set[int] = field(default_factory=set)
    """Requests that are to be had."""
    acquired: list[int] = field(default_factory=list)


class FakeScaleSets:
    """`server.lock` guards all of it; what an agent did wrong is in `server.violations`."""

    def __init__(self, server: GitHubServer) -> None:
        self._server = server
        self.sets: dict[int, FakeScaleSet] = {}
        self.numbers = itertools.count(7)
        self.message_numbers = itertools.count(12)
        self.request_numbers = itertools.count(90210)
        self.tokens: dict[str, float] = {}
        """Admin tokens and when they end, in seconds since 1970."""
        self.token_life_s = 3600.0
        self.groups = {1: "Default", 2: "builders"}
        self.poll_s = 0.2
        """How long a poll without news is held; GitHub holds it for fifty seconds."""
        self.capacities: list[str] = []
        """What agents said in X-ScaleSetMaxCapacity, in order."""
        self.registrations: list[dict[str, Any]] = []
        self.queue_url = ""
        """Instead of the usual one; `-` for none, as GitHub does for a set that was deleted."""

    # What tests do.

    @property
    def only(self) -> FakeScaleSet:
        (found,) = self.sets.values()
        return found

    def put(self, *items: dict[str, Any], with_statistics: bool = True, **totals: int) -> int:
        """A message of the only scale set, with totals that changed; its number."""
        made = self.only
        made.totals.update(totals)
        number = next(self.message_numbers)
        made.messages[number] = {
            "messageId": number,
            "messageType": "RunnerScaleSetJobMessages",
            "body": json.dumps(list(items)) if items else "",
            **({"statistics": self.statistics(made)} if with_statistics else {}),
        }
        return number

    def item(self, kind: str, **changes: Any) -> dict[str, Any]:
        made = {
            "messageType": kind,
            "runnerRequestId": next(self.request_numbers),
            "repositoryName": "bsp",
            "ownerName": "acme",
            "jobId": str(uuid.uuid4()),
            "jobWorkflowRef": "acme/bsp/.github/workflows/image.yml@refs/heads/main",
            "jobDisplayName": "image (qemux86-64)",
            "workflowRunId": 555,
            "eventName": "push",
            "requestLabels": ["smidr-lab1"],
            "queueTime": stamp(self._server.state.now),
            "scaleSetAssignTime": stamp(self._server.state.now),
            "runnerAssignTime": _UNSET,
            "finishTime": _UNSET,
        }
        return {**made, **changes}

    def statistics(self, of: FakeScaleSet) -> dict[str, int]:
        runners = list(self._server.state.runners.known.values())
        busy = sum(item["busy"] for item in runners)
        return {
            **{f"total{name.title()}Jobs": count for name, count in of.totals.items()},
            "totalRegisteredRunners": len(runners),
            "totalBusyRunners": busy,
            "totalIdleRunners": sum(i["status"] == "online" for i in runners) - busy,
        }

    # The service itself.

    def answer(self, asked: Asked) -> Answer:
        """To a call below the tenant's address, or at the queue; with the lock held."""
        path = asked.path.removeprefix(TENANT)
        for method, pattern, function in _ROUTES:
            match = pattern.fullmatch(path)
            if match is not None and method == asked.method:
                self._check_form(asked)
                return _with_mark(function(self, asked, match))
        return Answer(404, {"typeName": "NotFound", "message": f"no {asked.method} {path}"})

    def register(self, asked: Asked) -> Answer:
        """POST /actions/runner-registration of the REST API."""
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        if scheme != "RemoteAuth" or token not in self._server.state.runners.tokens:
            return Answer(401, {"message": "Bad credentials"})
        self.registrations.append(asked.body)
        ends = self._server.state.now.timestamp() + self.token_life_s
        parts = ({"alg": "RS256"}, {"exp": ends, "nameid": uuid.uuid4().hex})
        texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
        made = ".".join([*(text.rstrip("=") for text in texts), "sig"])
        self.tokens[made] = ends
        return Answer(200, {"url": f"{self._server.web}{TENANT}/", "token": made})

    def _check_form(self, asked: Asked) -> None:
        faults = []
        if asked.path.startswith(TENANT) and asked.query.get("api-version") != "6.0-preview":
            faults.append("no api-version")
        if asked.body is not None and asked.headers.get("content-type") != "application/json":
            faults.append("no Content-Type")
        try:
            told = json.loads(asked.headers.get("user-agent", ""))
            faults += [f"the User-Agent has no {key}" for key in _AGENT_KEYS if key not in told]
        except ValueError:
            faults.append("the User-Agent is no JSON")
        self._server.violations += [f"{asked.method} {asked.path}: {fault}" for fault in faults]

    def admin(self, asked: Asked) -> Answer | None:
        """None for a good admin token."""
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, 0.0) > self._server.state.now.timestamp():
            return None
        return _refusal(401, "VssUnauthorizedException", "the token is over")

    def find(self, number: str) -> FakeScaleSet | None:
        return self.sets.get(int(number))

    def shown(self, made: FakeScaleSet) -> dict[str, Any]:
        url = f"{self._server.web}{TENANT}/_apis/runtime/runnerscalesets/{made.number}"
        return {
            **made.body,
            "id": made.number,
            "createdOn": stamp(self._server.state.now),
            "runnerJitConfigUrl": f"{url}/generatejitconfig",
            "statistics": self.statistics(made),
        }

    def begin(self, made: FakeScaleSet, owner: str) -> dict[str, Any]:
        made.session = {
            "sessionId": str(uuid.uuid4()),
            "ownerName": owner,
            "token": uuid.uuid4().hex,
        }
        return self.session_shown(made)

    def session_shown(self, made: FakeScaleSet) -> dict[str, Any]:
        assert made.session is not None
        url = self.queue_url or f"{self._server.web}{QUEUE}?sessionId={made.session['sessionId']}"
        return {
            "sessionId": made.session["sessionId"],
            "ownerName": made.session["ownerName"],
            "runnerScaleSet": self.shown(made),
            "messageQueueUrl": "" if url == "-" else url,
            "messageQueueAccessToken": made.session["token"],
            "statistics": self.statistics(made),
        }

    def of_session(self, asked: Asked) -> FakeScaleSet | Answer:
        """By the queue's token."""
        for made in self.sets.values():
            if made.session and made.session["sessionId"] == asked.query.get("sessionId"):
                token = asked.headers.get("authorization", "").removeprefix("Bearer ")
                if token == made.session["token"]:
                    return made
                return _refusal(401, "MessageQueueTokenExpiredException", "the token is over")
        return _refusal(404, "RunnerScaleSetSessionNotFoundException", "no such session")

    def wait(self, is_so: Callable[[], bool]) -> None:
        """Hold a poll; the lock is free meanwhile."""
        self._server.lock.wait_for(lambda: is_so() or self._server.is_closing, self.poll_s)

    @property
    def runners(self) -> Any:
        return self._server.state.runners


def _refusal(status: int, type_name: str, message: str) -> Answer:
    full = f"GitHub.Services.WebApi.{type_name}, GitHub.Services.WebApi"
    return Answer(status, {"$id": "1", "typeName": full, "message": message})


def _with_mark(found: Answer) -> Answer:
    """Its answers may begin with a byte order mark."""
    if found.body is not None and found.raw is None:
        found.raw = b"\xef\xbb\xbf" + json.dumps(found.body).encode()
    found.headers.setdefault("ActivityId", "11111111-2222-3333-4444-555555555555")
    return found


_SETS = "/_apis/runtime/runnerscalesets"
_ONE = rf"{_SETS}/(?P<number>\d+)"
_AGENTS = "/_apis/distributedtask/pools/0/agents"


@_route("GET", "/_apis/runtime/runnergroups/")
def _groups(service: FakeScaleSets, asked: Asked, _match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    wanted = asked.query.get("groupName", "")
    found = [
        {"id": number, "name": name, "size": 0, "isDefaultGroup": number == 1}
        for number, name in service.groups.items()
        if name.lower() == wanted.lower()
    ]
    return Answer(200, {"count": len(found), "value": found})


@_route("GET", _SETS)
def _find(service: FakeScaleSets, asked: Asked, _match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    found = [
        service.shown(made)
        for made in service.sets.values()
        if made.body["name"] == asked.query.get("name")
        and str(made.body["runnerGroupId"]) == asked.query.get("runnerGroupId")
    ]
    return Answer(200, {"count": len(found), "value": found})


@_route("POST", _SETS)
def _create(service: FakeScaleSets, asked: Asked, _match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    if any(made.body["name"] == asked.body["name"] for made in service.sets.values()):
        return _refusal(409, "RunnerScaleSetExistsException", "it exists already")
    made = FakeScaleSet(next(service.numbers), asked.body)
    service.sets[made.number] = made
    return Answer(200, service.shown(made))


@_route("GET", _ONE)
def _get(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    made = service.find(match["number"])
    return Answer(200, service.shown(made)) if made else _no_set()


@_route("PATCH", _ONE)
def _change(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    made = service.find(match["number"])
    if made is None:
        return _no_set()
    made.body = asked.body
    return Answer(200, service.shown(made))


@_route("DELETE", _ONE)
def _delete(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    return Answer(204) if service.sets.pop(int(match["number"]), None) else _no_set()


def _no_set() -> Answer:
    return _refusal(404, "RunnerScaleSetNotFoundException", "no such scale set")


@_route("POST", f"{_ONE}/sessions")
def _begin(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    made = service.find(match["number"])
    if made is None:
        return _no_set()
    if made.session is not None:
        said = f"{made.session['ownerName']} has an active session"
        return _refusal(409, "RunnerScaleSetSessionConflictException", said)
    return Answer(200, service.begin(made, asked.body["ownerName"]))


@_route("PATCH", rf"{_ONE}/sessions/(?P<session>[\w-]+)")
def _renew(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    made = service.find(match["number"])
    if made is None or made.session is None or made.session["sessionId"] != match["session"]:
        return _refusal(404, "RunnerScaleSetSessionNotFoundException", "no such session")
    made.session["token"] = uuid.uuid4().hex
    return Answer(200, service.session_shown(made))


@_route("DELETE", rf"{_ONE}/sessions/(?P<session>[\w-]+)")
def _end(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    made = service.find(match["number"])
    if made is None or made.session is None or made.session["sessionId"] != match["session"]:
        return _refusal(404, "RunnerScaleSetSessionNotFoundException", "no such session")
    made.session = None
    return Answer(204)


@_route("GET", QUEUE)
def _poll(service: FakeScaleSets, asked: Asked, _match: Any) -> Answer:
    service.capacities.append(asked.headers.get("x-scalesetmaxcapacity", ""))
    made = service.of_session(asked)
    if isinstance(made, Answer):
        return made
    last = int(asked.query.get("lastMessageId", "0"))

    def fresh() -> list[int]:
        return [number for number in made.messages if number > last]

    service.wait(lambda: bool(fresh()) or made.session is None)
    found = service.of_session(asked)
    if isinstance(found, Answer):
        return found
    return Answer(200, made.messages[min(fresh())]) if fresh() else Answer(202)


@_route("DELETE", rf"{QUEUE}/(?P<message>\d+)")
def _confirm(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    made = service.of_session(asked)
    if isinstance(made, Answer):
        return made
    made.messages.pop(int(match["message"]), None)
    return Answer(204)


@_route("POST", f"{_ONE}/acquirejobs")
def _acquire(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    made = service.find(match["number"])
    if made is None:
        return _no_set()
    token = asked.headers.get("authorization", "").removeprefix("Bearer ")
    if made.session is None or token != made.session["token"]:
        return _refusal(401, "MessageQueueTokenExpiredException", "the token is over")
    got = [number for number in asked.body if number in made.acquirable]
    made.acquirable -= set(got)
    made.acquired += got
    return Answer(200, {"count": len(got), "value": got})


@_route("POST", f"{_ONE}/generatejitconfig")
def _generate(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    made = service.find(match["number"])
    if made is None:
        return _no_set()
    found = service.runners.register("/repos/acme/bsp", {"name": asked.body["name"]})
    if found is None:
        return _refusal(409, "AgentExistsException", f"{asked.body['name']} exists")
    runner, config = found
    shown = {"id": runner["id"], "name": runner["name"], "runnerScaleSetId": made.number}
    return Answer(200, {"runner": shown, "encodedJITConfig": config})


@_route("GET", _AGENTS)
def _agents(service: FakeScaleSets, asked: Asked, _match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    name = asked.query.get("agentName")
    found = [
        {"id": item["id"], "name": item["name"]}
        for item in service.runners.known.values()
        if item["name"] == name
    ]
    return Answer(200, {"count": len(found), "value": found})


@_route("DELETE", rf"{_AGENTS}/(?P<number>\d+)")
def _delete_agent(service: FakeScaleSets, asked: Asked, match: Any) -> Answer:
    if refused := service.admin(asked):
        return refused
    runner = service.runners.known.get(int(match["number"]))
    if runner is None:
        return _refusal(404, "AgentNotFoundException", "no such agent")
    if runner["busy"]:
        return _refusal(400, "JobStillRunningException", "it runs a job")
    del service.runners.known[runner["id"]]
    return Answer(204)
