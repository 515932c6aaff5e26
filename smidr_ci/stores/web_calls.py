"""Single HTTP requests to a store: the login, the errors in words, and what is worth repeating."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import requests
from tenacity import (
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from smidr_ci.cancel import CancelToken
from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConfigError, FailureKind
from smidr_ci.stores.model import Pause, StoreError

__all__ = ["RefusedError", "WebCalls", "WebLogin"]

_CONNECT_OR_WRITE_S: Final = 60.0
_ANSWER_S: Final = 300.0
_ATTEMPTS: Final = 5
_LONGEST_WAIT_S: Final = 30.0
_PASSING: Final = frozenset({408, 423, 425, 429, 500, 502, 503, 504})
_MISSING: Final = frozenset({404, 410})
_MISSABLE: Final = frozenset({"HEAD", "GET", "DELETE", "OPTIONS"})
_HINTS: Final = {
    401: "The store wants another login: see its credentials_file.",
    403: "The login in its credentials_file may not do this.",
    404: "Does the directory exist? Some WebDAV servers make none by themselves.",
    405: "The server does not take this at its address; is WebDAV (PUT, DELETE) allowed there?",
    409: "The directory does not exist there, and the server makes none by MKCOL.",
    413: "The server takes no files of this size; see client_max_body_size or its like.",
    507: "The store is full; old objects can go.",
}

T = TypeVar("T")


class RefusedError(StoreError):
    """The server answers, and not well; `status` is HTTP's, and `method` what was asked."""

    status = 0
    method = ""


@dataclass(frozen=True)
class WebLogin:
    """Who we are there; the file is read for each request, so that a new one counts at once."""

    file: Path | None = None
    """One line: `user:password` for basic authentication, else a bearer token."""

    def headers(self) -> dict[str, str]:
        """What to send along; raises `ConfigError`."""
        if self.file is None:
            return {}
        secret = read_secret(self.file).strip()
        if not secret or not secret.isascii() or not secret.isprintable():
            raise ConfigError(
                "must hold one line: user:password, or a bearer token", where=str(self.file)
            )
        if ":" in secret:
            return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
        return {"Authorization": f"Bearer {secret}"}


class WebCalls:
    """Requests with one login; thread-safe."""

    def __init__(self, login: WebLogin, ca_file: Path | None, pause: Pause | None) -> None:
        self._login = login
        self._verify = str(ca_file) if ca_file is not None else True
        self._pause = pause
        self._lock = threading.Lock()
        self._session: requests.Session | None = None

    def once(
        self,
        method: str,
        url: str,
        *,
        good: Iterable[int] = (200, 204),
        headers: Mapping[str, str] | None = None,
        body: Iterable[bytes] | None = None,
        is_stream: bool = False,
    ) -> requests.Response | None:
        """One try; None when nothing is there. Raises `StoreError`, passing or not."""
        # Nothing may pack the bytes on their way: sizes and checksums are of the files.
        sent = {"Accept-Encoding": "identity", **self._login.headers(), **(headers or {})}
        try:
            response = self._opened().request(
                method,
                url,
                headers=sent,
                data=body,
                timeout=(_CONNECT_OR_WRITE_S, _ANSWER_S),
                allow_redirects=False,
                stream=is_stream,
                verify=self._verify,
            )
        except (requests.RequestException, OSError) as error:
            raise _no_answer(url, error) from error
        if response.status_code in good:
            return response
        response.close()
        if response.status_code in _MISSING and method in _MISSABLE:
            return None
        raise _refusal(method, url, response)

    def repeat(self, call: Callable[[], T], cancel: CancelToken | None = None) -> T:
        """Call until it ends well or with what does not pass; at most five times."""

        def pause(seconds: float) -> None:
            (self._pause or (cancel or CancelToken()).wait)(seconds)
            if cancel is not None:
                cancel.raise_if_cancelled()

        retrying = Retrying(
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=1, max=_LONGEST_WAIT_S),
            retry=retry_if_exception(_is_passing),
            sleep=pause,
            reraise=True,
        )
        return retrying(call)

    def close(self) -> None:
        """Close idle connections; a later call opens new ones."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _opened(self) -> requests.Session:
        with self._lock:
            if self._session is None:
                self._session = requests.Session()
                # Or requests would send what ~/.netrc has for the host.
                self._session.auth = _no_login
            return self._session


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, StoreError) and error.is_passing


def _no_answer(url: str, error: Exception) -> StoreError:
    if isinstance(error, requests.exceptions.SSLError):
        hint = "See ca_file of the store for a certificate of your own."
        return StoreError(f"TLS fails: {_reason(error)}", where=url, hint=hint)
    is_request = isinstance(error, requests.ConnectionError | requests.Timeout)
    return StoreError(
        f"no answer from the store: {_reason(error)}",
        where=url,
        hint="Does it run, and can this host reach it?",
        is_passing=is_request,
    )


def _reason(error: BaseException) -> str:
    """The innermost words; those around it repeat the URL and objects' names."""
    for _ in range(10):
        inner = getattr(error, "reason", None) or next(iter(error.args), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    return str(error)[:300]


def _refusal(method: str, url: str, response: requests.Response) -> RefusedError:
    status = response.status_code
    hint = _HINTS.get(status, "")
    if 300 <= status < 400:
        hint = "Write the address that it redirects to; a login is not sent to another one."
    refused = RefusedError(
        f"the store answers {method} with {status} {response.reason or ''}".rstrip(),
        where=urlsplit(url)._replace(query="").geturl(),
        hint=hint,
        kind=FailureKind.DISK if status == 507 else None,
        is_passing=status in _PASSING,
    )
    refused.status, refused.method = status, method
    return refused
