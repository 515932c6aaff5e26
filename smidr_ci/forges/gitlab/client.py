"""The runner's side of GitLab's API: one method per endpoint, answers sorted by what to do next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from smidr_ci.forges.errors import ForgeError, ForgeUnreachableError
from smidr_ci.forges.gitlab.answers import (
    JobReply,
    Poll,
    PollOutcome,
    Verdict,
    job_reply_of,
    poll_of,
)
from smidr_ci.forges.gitlab.features import runner_info
from smidr_ci.forges.gitlab.transport import Call, Reply, Transport

__all__ = ["RunnerClient"]

_MAX_REQUEST: Final = 32 * 1024
_MAX_EXIT_CODE: Final = 32767


class RunnerClient:
    """Speaks as one runner registration. Thread-safe, but for one `request_job` at a time.

    `token` may be set when the runner's token was rotated. Calls about jobs never raise for what
    the server or the network does; those about the runner raise `ForgeError`.
    """

    def __init__(self, transport: Transport, *, token: str = "", system_id: str = "") -> None:
        self.transport = transport
        self.token = token
        self.system_id = system_id
        self.last_update = ""
        """The queue's last value that the server told; with it, it may hold a request."""

    def verify(self) -> Mapping[str, Any]:
        """Id, token, token_expires_at (GitLab: POST runners/verify); raises `ForgeError`."""
        body = {"token": self.token, "system_id": self.system_id, "info": runner_info()}
        reply = self._send("verify", "POST", "runners/verify", body, self._runner_headers())
        if reply.status != 200:
            raise _refused(reply, "verify the runner", _VERIFY_HINTS)
        media = reply.headers.get("Content-Type", "")
        # Servers before 15.x answer with the bare text "200".
        return _object(reply) if "json" in media else {}

    def register(self, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Id and token of a new runner, with a legacy registration token (GitLab: POST runners).

        `options` as GitLab names them: description, tag_list (comma separated), run_untagged,
        locked, access_level, maximum_timeout, paused, maintenance_note. Raises `ForgeError`.
        """
        known = {key: value for key, value in options.items() if value is not None}
        body = {"token": self.token, **known, "info": runner_info()}
        reply = self._send("register", "POST", "runners", body, self._runner_headers())
        if reply.status != 201:
            raise _refused(reply, "register the runner", _REGISTER_HINTS)
        return _object(reply)

    def unregister(self) -> None:
        """Delete the runner with all its machines (GitLab: DELETE runners)."""
        self._delete("runners", {"token": self.token})

    def unregister_machine(self) -> None:
        """Delete only this machine from the runner (GitLab: DELETE runners/managers)."""
        self._delete("runners/managers", {"token": self.token, "system_id": self.system_id})

    def reset_token(self) -> Mapping[str, Any]:
        """A new token and token_expires_at; the old one is dead when this returns.

        GitLab: POST runners/reset_authentication_token. Raises `ForgeError`.
        """
        path = "runners/reset_authentication_token"
        reply = self._send("reset-token", "POST", path, {"token": self.token})
        if reply.status != 201:
            raise _refused(reply, "change the runner's token", _VERIFY_HINTS)
        return _object(reply)

    def request_job(self, *, is_hasty: bool = False) -> Poll:
        """Ask for a job; blocks as long as the server holds a long poll, unless `is_hasty`."""
        info = {**runner_info()}
        body: dict[str, Any] = {"token": self.token, "system_id": self.system_id, "info": info}
        if self.last_update and not is_hasty:  # only with it a server holds a request
            body["last_update"] = self.last_update
        try:
            reply = self._send("request-job", "POST", "jobs/request", body, self._runner_headers())
        except ForgeUnreachableError as error:
            outcome = PollOutcome.MISCONFIGURED if error.is_misconfigured else PollOutcome.FAILED
            return Poll(outcome, message=str(error))
        told = reply.headers.get("X-GitLab-Last-Update", "")
        if told and len(told) < _MAX_REQUEST // 2:
            self.last_update = told
        return poll_of(reply)

    def update_job(
        self,
        job_id: int,
        job_token: str,
        state: str,
        *,
        failure_reason: str = "",
        exit_code: int = 0,
        crc32: int | None = None,
        size_bytes: int = 0,
    ) -> JobReply:
        """Tell a job's state: pending, running, success or failed (GitLab: PUT jobs/:id)."""
        body: dict[str, Any] = {"token": job_token, "state": state, "info": runner_info()}
        if failure_reason:
            body["failure_reason"] = failure_reason
        if exit_code:
            body["exit_code"] = max(0, min(exit_code, _MAX_EXIT_CODE))
        if crc32 is not None:
            checksum = f"crc32:{crc32:08x}"
            body["checksum"] = checksum
            body["output"] = {"checksum": checksum, "bytesize": size_bytes}
        call = Call("update-job", "PUT", f"jobs/{job_id:d}", _JSON | _job(job_token), _dump(body))
        return self._about_job(call)

    def patch_trace(
        self, job_id: int, job_token: str, data: bytes, start: int, *, is_debug: bool = False
    ) -> JobReply:
        """Append to the trace, at most 1 MiB (GitLab: PATCH jobs/:id/trace).

        Sending the same bytes again does no harm. `offset` of the answer is where to go on.
        """
        end = start + len(data)
        headers = {
            "Content-Type": "text/plain",
            "Content-Range": f"{start}-{end - 1}",
            **_job(job_token),
        }
        params = {"debug_trace": "true" if is_debug else "false"}
        call = Call("patch-trace", "PATCH", f"jobs/{job_id:d}/trace", headers, data, params)
        return self._about_job(call, end)

    def artifacts_url(self, job_id: int) -> str:
        """Where a job's artifacts are uploaded to and downloaded from."""
        return f"{self.transport.base}jobs/{job_id:d}/artifacts"

    def job_headers(self, job_token: str) -> dict[str, str]:
        """Headers of a request with a job's token, and a new correlation id."""
        return self.transport.headers(_job(job_token))

    def _runner_headers(self) -> dict[str, str]:
        return {"RUNNER-TOKEN": self.token}

    def _send(
        self,
        operation: str,
        method: str,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        call = Call(operation, method, path, _JSON | dict(headers or {}), _dump(body))
        return self.transport.send(call)

    def _delete(self, path: str, body: Mapping[str, Any]) -> None:
        reply = self._send("unregister", "DELETE", path, body, self._runner_headers())
        if reply.status != 204:
            raise _refused(reply, "unregister the runner", _VERIFY_HINTS)

    def _about_job(self, call: Call, end: int = 0) -> JobReply:
        try:
            reply = self.transport.send(call)
        except ForgeError as error:
            return JobReply(Verdict.FAILED, message=str(error))
        return job_reply_of(reply, end, is_patch=call.method == "PATCH")


_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}
_VERIFY_HINTS: Final = {
    400: "The request had no token.",
    403: "The token is wrong, expired or its runner was deleted: make a new runner in GitLab.",
    404: "Is this the address of the GitLab instance, with its path if it lies below one?",
    422: "The group or project that owns the runner is gone: make a new runner in GitLab.",
}
_REGISTER_HINTS: Final = {
    403: "The registration token is wrong. Better make the runner in GitLab: its token begins "
    "with glrt-.",
    404: "Is this the address of the GitLab instance, with its path if it lies below one?",
    410: "Registration tokens are switched off there: make the runner in GitLab, its token "
    "begins with glrt-.",
}


def _dump(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _job(token: str) -> dict[str, str]:
    return {"JOB-TOKEN": token}


def _object(reply: Reply) -> Mapping[str, Any]:
    found = reply.json()
    if not isinstance(found, dict):
        raise ForgeError("the answer is no JSON object", where=reply.url, status=reply.status)
    return found


def _refused(reply: Reply, what: str, hints: Mapping[int, str]) -> ForgeError:
    said = f": {reply.message}" if reply.message else ""
    return ForgeError(
        f"can't {what}: the server answers {reply.status}{said}",
        where=reply.url,
        hint=hints.get(reply.status, f"The server's log knows more, by {reply.correlation_id}."),
        status=reply.status,
    )
