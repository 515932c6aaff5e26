"""One file to GitLab as a multipart form, again and again until it is there or is refused.

The server can't go on in the middle of an upload, so each attempt sends all of it; `Replay` makes
that cheap. The body is chunked, since its size is not known before it is packed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests

from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.replay import Bytes, Replay
from smidr_ci.forges.gitlab.transport import Pause, Reply
from smidr_ci.forges.readahead import one_ahead
from smidr_ci.forges.streaming import ChunkedBody
from smidr_ci.text import printable

__all__ = ["Answer", "Delivery"]

_CONNECT_OR_WRITE_S: Final = 120.0
_ANSWER_S: Final = 600.0
_TRANSIENT: Final = frozenset({0, 408, 429, 500, 502, 503, 504})
_TRIES: Final = 3
_TRIES_UNAVAILABLE: Final = 6
_MOST_TRIES: Final = 50
_LONGEST_WAIT_S: Final = 60.0
_LONGEST_ASKED_S: Final = 600.0
_MAX_ANSWER: Final = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What the server said at last; status 0 is no answer."""

    status: int
    message: str = ""
    location: str = ""
    retry_after_s: float = 0.0

    @property
    def is_transient(self) -> bool:
        """Whether the same may work later."""
        return self.status in _TRANSIENT or self.status >= 512

    @property
    def text(self) -> str:
        """Status and message for a line of the log."""
        return f"{self.status} {self.message}".strip() if self.status else self.message


@dataclass
class Delivery:
    """One file on its way."""

    client: RunnerClient
    token: str
    url: str
    params: Mapping[str, str]
    file_name: str
    replay: Replay
    cancel: CancelToken
    warn: Callable[[str], None]
    clock: Clock = SystemClock()
    patience_s: float = 600.0
    """How long to go on trying while the server or the network is in trouble."""
    pause: Pause | None = None
    """Waits between attempts; the default ends with the cancel."""
    is_sized: bool = False
    """Send Content-Length instead of chunks."""
    attempts: int = 0

    def run(self) -> Answer:
        """The last answer; 201 means it is there. Raises `CancelledError` and what packing does."""
        begun = self.clock.monotonic()
        answer = Answer(0)
        wait_s = 1.0
        while self.attempts < _MOST_TRIES:
            self.cancel.raise_if_cancelled()
            answer = self._attempt()
            if self._is_mended(answer):
                continue
            is_late = self.clock.monotonic() - begun > self.patience_s
            if not answer.is_transient or (is_late and self.attempts >= _tries(answer)):
                break
            asked = min(answer.retry_after_s, _LONGEST_ASKED_S) or wait_s
            self.warn(f"uploading {self.file_name}: {answer.text}; trying again in {asked:.0f} s")
            (self.pause or self.cancel.wait)(asked)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        return answer

    def _is_mended(self, answer: Answer) -> bool:
        """Whether another way of sending it was found."""
        if answer.status in {307, 308} and answer.location:
            self.url = _moved(self.url, answer.location)
            return True
        if answer.status == 411 and not self.is_sized:  # very old nginx
            self.replay.complete()
            self.is_sized = True
            return True
        return False

    def _attempt(self) -> Answer:
        self.attempts += 1
        form = _Form(self.file_name, self.replay, self.cancel)
        with closing(form):
            return self._send(form)

    def _send(self, form: _Form) -> Answer:
        headers = self.client.job_headers(self.token)
        headers["Content-Type"] = f"multipart/form-data; boundary={form.boundary}"
        try:
            response = self.client.transport.session().post(
                self.url,
                params=self.params,
                data=_Sized(form) if self.is_sized else ChunkedBody(form),  # type: ignore[arg-type]  # types-requests knows of no memoryview
                headers=headers,
                timeout=(_CONNECT_OR_WRITE_S, _ANSWER_S),
                allow_redirects=False,
                stream=True,
            )
            with response:
                return _answer_of(response)
        except (requests.RequestException, OSError, ValueError) as error:
            return Answer(0, f"no answer: {printable(str(error))[:300]}")


class _Form:
    """A form with the one part `file`."""

    def __init__(self, file_name: str, replay: Replay, cancel: CancelToken) -> None:
        self.boundary = f"smidr-{secrets.token_hex(16)}"
        self.replay = replay
        self._cancel = cancel
        self._contents: list[Generator[Bytes, None, None]] = []
        # As browsers write it (HTML standard, multipart/form-data).
        name = "".join({'"': "%22", "\r": "%0D", "\n": "%0A"}.get(sign, sign) for sign in file_name)
        self.head = (
            f"--{self.boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("utf-8", "replace")
        self.tail = f"\r\n--{self.boundary}--\r\n".encode()

    def __iter__(self) -> Iterator[Bytes]:
        content = one_ahead(self.replay.chunks())
        self._contents.append(content)
        yield self.head
        for chunk in content:
            self._cancel.raise_if_cancelled()
            yield chunk
        yield self.tail

    def close(self) -> None:
        """End what makes the content ahead: the next attempt must not meet it."""
        for content in self._contents:
            content.close()


@dataclass(frozen=True)
class _Sized:
    """requests sends what has a length with Content-Length."""

    form: _Form

    def __len__(self) -> int:
        return len(self.form.head) + self.form.replay.produced_bytes + len(self.form.tail)

    def __iter__(self) -> Iterator[Bytes]:
        return iter(self.form)


def _tries(answer: Answer) -> int:
    return _TRIES_UNAVAILABLE if answer.status == 503 else _TRIES


def _answer_of(response: requests.Response) -> Answer:
    body = bytearray()
    for chunk in response.iter_content(1 << 14):
        body += chunk
        if len(body) > _MAX_ANSWER:
            break
    reply = Reply(response.status_code, response.headers, bytes(body), "", response.url)
    after = response.headers.get("Retry-After", "").strip()
    is_number = after.isascii() and after.isdigit() and len(after) < 10
    return Answer(
        response.status_code,
        reply.message or printable(response.reason or "")[:100],
        response.headers.get("Location", ""),
        float(after) if is_number else 0.0,
    )


def _moved(url: str, location: str) -> str:
    """The same path at the scheme and host of the location, as the official runner does it."""
    here, there = urlsplit(url), urlsplit(urljoin(url, location))
    is_downgrade = here.scheme == "https" and there.scheme != "https"
    if is_downgrade or there.scheme not in {"http", "https"} or not there.hostname:
        raise ForgeError(
            f"the server redirects the upload to {printable(location)[:200]}, where a token must"
            " not go",
            where=url,
            hint="Register the runner with the address that it redirects to.",
        )
    netloc = there.netloc.rpartition("@")[2]
    return urlunsplit(here._replace(scheme=there.scheme, netloc=netloc))
