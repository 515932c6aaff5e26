"""How the fake's REST API finds the function for a call, and who may make it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.fakes.github.state import APP_ID, GitHubState, Token, rsa_key

__all__ = ["REPOSITORY", "Answer", "Asked", "answer", "route"]


@dataclass
class Asked:
    method: str
    path: str
    """Below the API's address."""
    query: dict[str, str]
    headers: dict[str, str]
    """Names in small letters."""
    body: Any = None


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    """Instead of the body as JSON."""


_Handler = Callable[..., Answer]
_ROUTES: list[tuple[str, re.Pattern[str], str, _Handler]] = []
REPOSITORY = r"/repos/(?P<repository>[^/]+/[^/]+)"


def route(method: str, pattern: str, permission: str = "") -> Callable[[_Handler], _Handler]:
    """`permission` is `name:level`, `app` for the App itself, empty for anybody.

    `runners:LEVEL` is what it takes to see to runners of a repository or of an organisation.
    """

    def add(function: _Handler) -> _Handler:
        _ROUTES.append((method, re.compile(pattern), permission, function))
        return function

    return add


def answer(state: GitHubState, asked: Asked) -> Answer:
    if not asked.headers.get("user-agent"):
        return Answer(403, {"message": "Request forbidden by administrative rules: User-Agent"})
    if asked.headers.get("x-github-api-version") != "2022-11-28":
        return Answer(400, {"message": "X-GitHub-Api-Version is missing"})
    for method, pattern, permission, function in _ROUTES:
        match = pattern.fullmatch(asked.path)
        if match is None or method != asked.method:
            continue
        groups = match.groupdict()
        new = state.renamed.get(groups.get("repository") or "")
        if new is not None:
            where = asked.path.replace(groups["repository"], new, 1)
            return Answer(301, {"message": "Moved Permanently"}, {"Location": where})
        refused = _refused(state, asked, permission, groups.get("repository") or "")
        return refused or function(state, asked, **groups)
    return Answer(404, {"message": "Not Found"})


def _refused(state: GitHubState, asked: Asked, permission: str, repository: str) -> Answer | None:
    text = asked.headers.get("authorization", "").removeprefix("Bearer ")
    if permission == "app":
        return _refused_app(state, text)
    is_organization = asked.path.startswith("/orgs/")
    of_runners = "organization_self_hosted_runners" if is_organization else "administration"
    permission = permission.replace("runners:", f"{of_runners}:")
    token = state.tokens.get(text)
    if token is None or token.is_revoked or token.expires <= state.now:
        return Answer(401, {"message": "Bad credentials"})
    name = repository.partition("/")[2]
    if token.repositories and name not in token.repositories:
        return Answer(404, {"message": "Not Found"})
    return _refused_level(token, permission)


def _refused_level(token: Token, permission: str) -> Answer | None:
    name, _, level = permission.partition(":")
    if not token.is_app:
        is_forbidden = name == "checks" and level == "write"
        message = "You must authenticate via a GitHub App."
        return Answer(403, {"message": message}) if is_forbidden else None
    given = token.permissions.get(name, "")
    if name and given not in {"write", level}:
        return Answer(403, {"message": "Resource not accessible by integration"})
    return None


def _refused_app(state: GitHubState, text: str) -> Answer | None:
    try:
        claims = jwt.decode(
            text,
            rsa_key().public_key(),
            algorithms=["RS256"],
            options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
        )
    except jwt.PyJWTError:
        return Answer(401, {"message": "A JSON web token could not be decoded"})
    now = state.now.timestamp()
    is_good = claims["iss"] == str(APP_ID) and claims["iat"] <= now < claims["exp"] <= now + 600
    return None if is_good else Answer(401, {"message": "'Expiration time' claim is off"})
