"""Who this host is to GitHub: an App with tokens per repository and purpose, or a plain token.

Facts: docs.github.com, "Generating a JSON Web Token (JWT) for a GitHub App" and "Generating an
installation access token". A token's text has no form that could be checked.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConfigError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.exchange import Call, Reply
from smidr_ci.forges.github.sender import Authorization, Sender

__all__ = ["APP", "AppCredentials", "Credentials", "Scope", "TokenCredentials"]

_JWT_S: Final = 540
_JWT_KEPT_S: Final = 420
_CLOCK_SKEW_S: Final = 60
_RENEW_S: Final = 600.0
_LONGEST_S: Final = 3600.0


@dataclass(frozen=True)
class Scope:
    """What a token must be good for, and nothing besides."""

    repository: str = ""
    """`owner/name`."""
    organization: str = ""
    """Instead of a repository: for runners of an organisation."""
    permissions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, repository: str, **permissions: str) -> Scope:
        """Of one repository: `Scope.of("acme/bsp", checks="write")`."""
        return cls(repository=repository, permissions=tuple(sorted(permissions.items())))


APP: Final = Scope()
"""The App itself, with no installation."""


class Credentials(Protocol):
    """Gives calls their Authorization; thread-safe."""

    is_app: bool
    """Only Apps may write check runs."""

    def authorize(self, scope: Scope) -> Authorization:
        """For calls of this scope; raises `ForgeError`, or `ConfigError` for a bad secret file."""

    def refused(self, scope: Scope, authorization: Authorization) -> bool:
        """GitHub answered 401 to it; whether the next `authorize` gives another one."""


class TokenCredentials:
    """A personal or other plain token in a file, which is read again for each call."""

    is_app = False

    def __init__(self, token_file: Path) -> None:
        self._token_file = token_file

    def authorize(self, scope: Scope) -> Authorization:  # noqa: ARG002 - it is what it is
        """The token of the file; raises `ConfigError`."""
        token = read_secret(self._token_file).strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError("holds no token", where=str(self._token_file))
        return Authorization(f"Bearer {token}", "token")

    def refused(self, scope: Scope, authorization: Authorization) -> bool:
        """Whether the file has another token by now."""
        return self.authorize(scope) != authorization


@dataclass(frozen=True)
class _Kept:
    authorization: Authorization
    until: float
    """When to get another, by the monotonic clock."""


class AppCredentials:
    """A GitHub App: tokens live an hour and are renewed ten minutes before their end."""

    is_app = True

    def __init__(self, app_id: str, key_file: Path, sender: Sender) -> None:
        self.app_id = app_id
        self._key_file = key_file
        self._sender = sender
        self._lock = threading.Lock()
        self._scope_locks: dict[Scope, threading.Lock] = {}
        self._tokens: dict[Scope, _Kept] = {}
        self._installations: dict[Scope, int] = {}

    def authorize(self, scope: Scope) -> Authorization:
        """A token for the scope, or the App's own for `APP`."""
        with self._lock:
            lock = self._scope_locks.setdefault(scope, threading.Lock())
        with lock:  # only one thread asks for a token, the others wait for it
            now = self._sender.clock.monotonic()
            kept = self._tokens.get(scope)
            if kept is None or kept.until <= now:
                kept = self._signed() if scope == APP else self._installed(scope)
                self._tokens[scope] = kept
            return kept.authorization

    def refused(self, scope: Scope, authorization: Authorization) -> bool:
        """Forget the token: there is always another."""
        with self._lock:
            kept = self._tokens.get(scope)
            if kept is not None and kept.authorization == authorization:
                del self._tokens[scope]
        return True

    def _signed(self) -> _Kept:
        import jwt  # noqa: PLC0415 - slow to import, and only Apps need it

        clock = self._sender.clock
        now = int(clock.now().timestamp())
        claims = {"iat": now - _CLOCK_SKEW_S, "exp": now + _JWT_S, "iss": self.app_id}
        try:
            text = jwt.encode(claims, read_secret(self._key_file), algorithm="RS256")
        except (ValueError, TypeError, jwt.PyJWTError):
            # Not the library's text, which may show what it was given.
            raise ConfigError(
                "is no RSA key in PEM format",
                where=str(self._key_file),
                hint="Download a private key on the page of the App, and keep it as it is.",
            ) from None
        return _Kept(Authorization(f"Bearer {text}", "app"), clock.monotonic() + _JWT_KEPT_S)

    def _installed(self, scope: Scope) -> _Kept:
        is_cached = scope in self._installations
        reply = self._ask_token(scope)
        if reply.status == 404 and is_cached:  # removed and installed again since
            self._installations.pop(scope, None)
            reply = self._ask_token(scope)
        if not reply.is_success:
            what = scope.repository or scope.organization
            raise reply.failure(f"get a token for {what}")
        found = reply.object()
        token = found.get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ForgeError("the answer has no usable token", where=reply.url)
        clock = self._sender.clock
        life = _life_of(found.get("expires_at"), clock.now())
        identity = f"installation {self._installations.get(scope, 0)}"
        until = clock.monotonic() + max(life - _RENEW_S, 0.0)
        return _Kept(Authorization(f"Bearer {token}", identity), until)

    def _ask_token(self, scope: Scope) -> Reply:
        name = scope.repository.partition("/")[2]
        reply = self._ask_token_for(scope, name)
        if reply.status == 422 and name:
            name = self._name_now(scope)
            reply = self._ask_token_for(scope, name) if name else reply
        return reply

    def _ask_token_for(self, scope: Scope, name: str) -> Reply:
        number = self._installation(scope)
        wanted: dict[str, object] = {"permissions": dict(scope.permissions)}
        if name:
            wanted["repositories"] = [name]
        path = f"/app/installations/{number:d}/access_tokens"
        return self._as_app(Call("POST", path, json=wanted))

    def _name_now(self, scope: Scope) -> str:
        """What a repository is called after it was renamed; empty when it was not.

        Tokens are asked for by name; only a call tells the new one, with a token that opens little.
        """
        number = self._installation(scope)
        path = f"/app/installations/{number:d}/access_tokens"
        reply = self._as_app(Call("POST", path, json={"permissions": {"metadata": "read"}}))
        token = reply.object().get("token") if reply.is_success else None
        if not isinstance(token, str):
            return ""
        authorization = Authorization(f"Bearer {token}", f"installation {number}")
        found = self._sender.send(Call("GET", f"/repos/{scope.repository}"), authorization)
        old = scope.repository.partition("/")[2]
        name = str(found.object().get("name") or "") if found.is_success else ""
        return name if name != old else ""

    def _installation(self, scope: Scope) -> int:
        known = self._installations.get(scope)
        if known is not None:
            return known
        path = f"/repos/{scope.repository}/installation"
        if not scope.repository:
            path = f"/orgs/{quote(scope.organization, safe='')}/installation"
        reply = self._as_app(Call("GET", path))
        number = reply.object().get("id") if reply.is_success else None
        if not isinstance(number, int):
            raise reply.failure(
                f"find the App's installation for {scope.repository or scope.organization}"
            )
        self._installations[scope] = number
        return number

    def _as_app(self, call: Call) -> Reply:
        authorization = self.authorize(APP)
        reply = self._sender.send(call, authorization)
        if reply.status == 401:
            self.refused(APP, authorization)
            reply = self._sender.send(call, self.authorize(APP))
        return reply


def _life_of(expires_at: object, now: datetime) -> float:
    """Seconds that a token is good for; an hour at most, whatever the clocks say."""
    try:
        found = datetime.fromisoformat(str(expires_at))
        return min(max((found - now).total_seconds(), 0.0), _LONGEST_S)
    except (ValueError, TypeError):
        return _LONGEST_S
