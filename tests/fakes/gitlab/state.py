"""GitLab's rules about runners and jobs: who may what, the trace's append, a job's states."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "FakeJob", "FakeRunner", "GitLabState", "Request"]

MEBIBYTE = 1024 * 1024
SYSTEM_ID = re.compile(r"[sr]_[0-9a-zA-Z]{12}")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    """Below `/api/v4/`, without query."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    at: float
    """Monotonic seconds."""

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def start(self) -> int:
        return int(self.headers["content-range"].partition("-")[0])


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeRunner:
    id: int
    token: str
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By system_id; the first request of a machine settles them."""
    is_paused: bool = False
    token_expires_at: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class FakeJob:
    payload: dict[str, Any]
    handed_out: float = 0.0
    """When it was given to a runner, in seconds since the epoch."""
    state: str = "queued"
    """queued, pending (handed out, not confirmed), running, canceling, success, failed, canceled"""
    features: dict[str, Any] = field(default_factory=dict)
    stored: bytearray = field(default_factory=bytearray)
    is_debug: bool = False
    interval: int | None = None
    failure_reason: str | None = None
    exit_code: int | None = None
    checksum_matches: bool | None = None
    finals: int = 0
    """How often a final state was accepted."""
    accepted_left: int = 0
    """Answer 202 to so many final PUTs first."""
    uploads: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def id(self) -> int:
        return int(self.payload["id"])

    @property
    def is_over(self) -> bool:
        return self.state in {"success", "failed", "canceled"}

    @property
    def trace(self) -> str:
        return bytes(self.stored).decode()


class GitLabState:
    """Not thread-safe: the server calls it under its lock."""

    def __init__(self) -> None:
        self.runners: dict[str, FakeRunner] = {}
        self.jobs: dict[int, FakeJob] = {}
        self.registration_token: str | None = "GR1348941registration"
        self.is_two_phase = True
        self.trace_limit_mb = 100
        self.queue_value = "queue-0"
        self.violations: list[str] = []

    def add_runner(self, token: str = "glrt-abcdefghij0123456789") -> FakeRunner:
        runner = FakeRunner(len(self.runners) + 1, token)
        self.runners[token] = runner
        return runner

    def add_job(self, payload: dict[str, Any]) -> FakeJob:
        job = FakeJob(payload)
        self.jobs[job.id] = job
        self.queue_value = f"queue-{len(self.jobs)}"
        return job

    def register(self, request: Request) -> Answer:
        body = request.json
        self._check(bool(body.get("info", {}).get("features")), "register without info.features")
        if self.registration_token is None:
            return Answer(410, {"message": "410 Gone - runner registration disallowed"})
        if body.get("token") != self.registration_token:
            return Answer(403, {"message": "403 Forbidden"})
        if len(body.get("tag_list", "").split(",")) > 50:
            return Answer(400, {"message": {"tags_list": ["Too many tags specified."]}})
        runner = self.add_runner(f"glrtr-legacy{len(self.runners)}")
        runner.options = {key: value for key, value in body.items() if key != "info"}
        return Answer(201, self._credentials(runner))

    def verify(self, request: Request) -> Answer:
        runner, refusal = self._runner_of(request)
        return refusal if runner is None else Answer(200, self._credentials(runner))

    def unregister(self, request: Request) -> Answer:
        runner, refusal = self._runner_of(request, needs_info=False)
        if runner is None:
            return refusal
        if request.path == "runners/managers":
            if request.json.get("system_id") not in runner.features:
                return Answer(404, {"message": "404 Not found"})
            del runner.features[request.json["system_id"]]
        else:
            del self.runners[runner.token]
        return Answer(204)

    def reset(self, request: Request) -> Answer:
        runner, refusal = self._runner_of(request, needs_info=False)
        if runner is None:
            return refusal
        del self.runners[runner.token]
        runner.token += "-next"
        self.runners[runner.token] = runner
        return Answer(201, self._credentials(runner))

    def next_job(self, request: Request) -> Answer:
        runner, refusal = self._runner_of(request)
        if runner is None:
            return refusal
        told = {"X-GitLab-Last-Update": self.queue_value}
        waiting = [job for job in self.jobs.values() if job.state == "queued"]
        if runner.is_paused or not waiting:
            return Answer(204, None, told)
        job = waiting[0]
        job.features = runner.features[request.json["system_id"]]
        is_confirmed = self.is_two_phase and job.features.get("two_phase_job_commit")
        job.state = "pending" if is_confirmed else "running"
        job.handed_out = time.time()
        return Answer(201, job.payload)

    def is_up_to_date(self, request: Request) -> bool:
        """Whether a long poll would be held."""
        return bool(request.json.get("last_update") == self.queue_value)

    def update(self, job_id: int, request: Request) -> Answer:
        body = request.json
        if "token" not in body:
            return Answer(400, {"error": "token is missing"})
        job, refusal = self._job_of(job_id, request, body["token"])
        if job is None:
            return refusal
        state = body.get("state")
        if job.state == "pending":
            if state == "running":
                job.state = "running"
            return self._told(job, 200 if state in {"running", "pending"} else 400)
        if state == "pending":
            return self._told(job, 409 if self.is_two_phase else 400)
        if state in {"success", "failed"}:
            return self._finish(job, body)
        return self._told(job, 200 if state == "running" else 400)

    def append(self, job_id: int, request: Request) -> Answer:
        job, refusal = self._job_of(job_id, request)
        if job is None:
            return refusal
        if request.headers.get("content-type") != "text/plain":
            return Answer(400, {"error": "body does not match declared format"})
        found = re.fullmatch(r"(\d+)-(\d+)", request.headers.get("content-range", ""))
        if found is None:
            return Answer(400, {"message": "400 Bad request - missing header Content-Range"})
        start, end = int(found[1]), int(found[1]) + len(request.body)
        self._check(int(found[2]) + 1 == end, "Content-Range is not that of the body")
        self._check(0 < len(request.body) <= MEBIBYTE, "patch of no or too many bytes")
        if start == 0 and request.query.get("debug_trace") == "true":
            job.is_debug = True
        if end // MEBIBYTE > self.trace_limit_mb:
            job.state, job.failure_reason = "failed", "trace_size_exceeded"
            return Answer(403, {"message": "403 Forbidden"})
        if start == len(job.stored):
            token = str(job.payload["token"]).encode()
            job.stored += request.body.replace(token, b"x" * len(token))
        if len(job.stored) != end:
            return Answer(416, 416, {"Range": f"0-{len(job.stored)}"})
        headers = {"Job-Status": job.state, "Range": f"0-{len(job.stored)}"}
        if job.interval is not None:
            headers["X-GitLab-Trace-Update-Interval"] = str(job.interval)
        return Answer(202, 202, headers)

    def upload(self, job_id: int, request: Request) -> Answer:
        job, refusal = self._job_of(job_id, request)
        if job is None:
            return refusal
        job.uploads.append((dict(request.query), request.body))
        return Answer(201, {"message": "201 Created"})

    def _finish(self, job: FakeJob, body: Mapping[str, Any]) -> Answer:
        checksum = body.get("checksum")
        if checksum and job.accepted_left:
            job.accepted_left -= 1
            return Answer(
                202, 202, {"Job-Status": job.state, "X-GitLab-Trace-Update-Interval": "1"}
            )
        job.state = "canceled" if job.state == "canceling" else body["state"]
        job.failure_reason = body.get("failure_reason")
        job.exit_code = body.get("exit_code")
        output = body.get("output", {})
        stored = bytes(job.stored)
        job.checksum_matches = checksum == output.get(
            "checksum"
        ) == f"crc32:{zlib.crc32(stored):08x}" and output.get("bytesize") == len(stored)
        job.finals += 1
        return self._told(job, 200)

    def _told(self, job: FakeJob, status: int) -> Answer:
        return Answer(status, status, {"Job-Status": job.state})

    def _credentials(self, runner: FakeRunner) -> dict[str, Any]:
        return {
            "id": runner.id,
            "token": runner.token,
            "token_expires_at": runner.token_expires_at,
        }

    def _runner_of(
        self, request: Request, *, needs_info: bool = True
    ) -> tuple[FakeRunner | None, Answer]:
        body = request.json
        token = body.get("token")
        if not token:
            return None, Answer(400, {"error": "token is missing"})
        runner = self.runners.get(token)
        if runner is None:
            return None, Answer(403, {"message": "403 Forbidden - invalid token"})
        if needs_info:
            self._check(request.headers.get("runner-token") == token, "RUNNER-TOKEN differs")
            system_id = str(body.get("system_id"))
            self._check(bool(SYSTEM_ID.fullmatch(system_id)), f"system_id {system_id}")
            features = body.get("info", {}).get("features", {})
            self._check(features.get("cancel_gracefully") is True, "no cancel_gracefully")
            runner.features.setdefault(system_id, features)
        return runner, Answer(200)

    def _job_of(
        self, job_id: int, request: Request, body_token: str | None = None
    ) -> tuple[FakeJob | None, Answer]:
        job = self.jobs.get(job_id)
        header = request.headers.get("job-token")
        self._check(header is not None, "no JOB-TOKEN")
        wanted = None if job is None else job.payload["token"]
        if job is None or header != wanted or body_token not in {None, wanted}:
            return None, Answer(403, {"message": "403 Forbidden"})
        may_wait = job.state == "pending" and request.method == "PUT"
        if job.state not in {"running", "canceling"} and not may_wait:
            refusal = {"message": "403 Forbidden - Job is not processing on runner"}
            return None, Answer(403, refusal, {"Job-Status": job.state})
        return job, Answer(200)

    def _check(self, is_right: bool, what: str) -> None:
        if not is_right:
            self.violations.append(what)
