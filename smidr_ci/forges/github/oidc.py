"""Checks the identity tokens that jobs get from GitHub (docs.github.com, "OpenID Connect").

Such a token can't be forged by a job, and a fork's pull request gets none.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import ForbiddenError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.facts import PRIVILEGED, PULL_REQUESTS, JobFacts
from smidr_ci.forges.github.sender import USER_AGENT
from smidr_ci.forges.github.site import Site
from smidr_ci.forges.github.transport import Transport
from smidr_ci.text import printable

if TYPE_CHECKING:
    import jwt

__all__ = ["AUDIENCE", "IdentityTokens"]

AUDIENCE: Final = "smidr"
"""What a step must ask for, so that a token for somebody else opens nothing here."""

_KEPT_S: Final = 3600.0
_AGAIN_S: Final = 30.0
_LEEWAY_S: Final = 60
_MAX_TOKEN: Final = 16 * 1024
_REQUIRED: Final = ("exp", "iat", "iss", "aud", "sub")


class IdentityTokens:
    """Of one GitHub; thread-safe. `issuer` is for enterprises that have an issuer of their own."""

    def __init__(
        self,
        site: Site,
        transport: Transport,
        *,
        issuer: str = "",
        audience: str = AUDIENCE,
        clock: Clock | None = None,
    ) -> None:
        self._site = site
        self._issuer = issuer or site.token_issuer
        self._audience = audience
        self._transport = transport
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")

    def facts(self, token: str) -> JobFacts:
        """What a good token says.

        Raises `ForbiddenError` for any other, and `ForgeError` when GitHub's keys can't be had.
        """
        claims = self._claims(token)
        repository = str(claims.get("repository", ""))
        if not self._site.covers(repository):
            raise ForbiddenError(
                f"the job is of {printable(repository)[:200]}, and this host serves "
                f"{self._site.repository or self._site.owner}"
            )
        event = str(claims.get("event_name", ""))
        sha = str(claims.get("sha", ""))
        ref = str(claims.get("ref", ""))
        is_strangers = event in PULL_REQUESTS or event in PRIVILEGED
        return JobFacts(
            host=self._site.host,
            repository=repository,
            repository_id=_number(claims.get("repository_id")),
            event=event,
            run_id=_number(claims.get("run_id")),
            attempt=_number(claims.get("run_attempt")),
            ref=ref,
            is_ref_protected=claims.get("ref_protected") == "true",
            head_repository="" if is_strangers else repository,
            is_fork=None if is_strangers else False,
            commits=frozenset({sha} if sha else ()),
            head_sha="" if event in PULL_REQUESTS else sha,
            pull_request=_pull_request_of(ref),
            job_id=_number(claims.get("check_run_id")),
            actor=str(claims.get("actor", "")),
        )

    def _claims(self, token: str) -> Mapping[str, Any]:
        import jwt  # noqa: PLC0415 - slow to import

        if len(token) > _MAX_TOKEN:
            raise ForbiddenError("the identity token is too long to be one")
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
            found: dict[str, Any] = jwt.decode(
                token,
                self._key(str(kid)),
                algorithms=["RS256"],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_S,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise ForbiddenError(
                f"the identity token is not good: {printable(str(error))[:200]}",
                hint=f"The step must ask GitHub for one with the audience {self._audience!r}, and "
                "its job needs the permission 'id-token: write'.",
            ) from None
        return found

    def _key(self, kid: str) -> jwt.PyJWK:
        with self._lock:
            age = self._clock.monotonic() - self._fetched
            # Anybody may send an unknown key's name: that must not make us ask all the time.
            if age >= _KEPT_S or (kid not in self._keys and age >= _AGAIN_S):
                self._keys = self._fetch()
                self._fetched = self._clock.monotonic()
            key = self._keys.get(kid)
        if key is None:
            raise ForbiddenError("the identity token is signed by a key that GitHub does not have")
        return key

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        import jwt  # noqa: PLC0415 - slow to import

        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        url = f"{self._issuer}/.well-known/jwks"
        reply = self._transport.exchange("GET", url, headers)
        if not reply.is_success:
            raise reply.failure("get the keys of identity tokens")
        try:
            keys = jwt.PyJWKSet.from_dict(reply.object()).keys
        except jwt.PyJWTError as error:
            raise ForgeError(
                f"the keys of identity tokens are no keys: {error}", where=url
            ) from None
        return {key.key_id: key for key in keys if key.key_id}


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _pull_request_of(ref: str) -> int:
    parts = ref.split("/")
    return _number(parts[2]) if parts[:2] == ["refs", "pull"] and len(parts) == 4 else 0
