"""The fake's identity tokens of jobs (OpenID Connect): discovery, keys, tokens."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.fakes.github.rest import Answer, Asked

__all__ = ["TokenService", "answer", "identity_token", "signing_key"]

_SERVICE = "/_services/token"


@cache
def signing_key(name: str) -> rsa.RSAPrivateKey:
    del name  # a key per name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def answer(web: str, asked: Asked) -> Answer:
    issuer = f"{web}{_SERVICE}"
    if asked.path == f"{_SERVICE}/.well-known/openid-configuration":
        return Answer(200, {"issuer": issuer, "jwks_uri": f"{issuer}/.well-known/jwks"})
    if asked.path == f"{_SERVICE}/.well-known/jwks":
        raw = jwt.algorithms.RSAAlgorithm.to_jwk(signing_key("first").public_key())
        return Answer(200, {"keys": [{**json.loads(raw), "kid": "first", "use": "sig"}]})
    return Answer(404, {"message": "Not Found"})


def identity_token(
    web: str, now: datetime, *, key: str = "first", kid: str = "first", **changes: Any
) -> str:
    """A token as a push to main of acme/bsp gets it, unless told otherwise."""
    claims: dict[str, Any] = {
        "iss": f"{web}{_SERVICE}",
        "aud": "smidr",
        "sub": "repo:acme/bsp:ref:refs/heads/main",
        "iat": now.astimezone(UTC),
        "nbf": now.astimezone(UTC) - timedelta(minutes=5),
        "exp": now.astimezone(UTC) + timedelta(minutes=5),
        "jti": "j1",
        "repository": "acme/bsp",
        "repository_id": "9",
        "repository_owner": "acme",
        "repository_visibility": "private",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "ref_protected": "true",
        "sha": "0123456789abcdef0123456789abcdef01234567",
        "event_name": "push",
        "run_id": "555",
        "run_attempt": "1",
        "actor": "alice",
        "head_ref": "",
        "base_ref": "",
        "job_workflow_ref": "acme/bsp/.github/workflows/image.yml@refs/heads/main",
        "runner_environment": "self-hosted",
    }
    claims.update(changes)
    return jwt.encode(claims, signing_key(key), algorithm="RS256", headers={"kid": kid})


@dataclass
class TokenService:
    """Gives a job its identity token, as ACTIONS_ID_TOKEN_REQUEST_URL does."""

    value: str
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append((self.path, self.headers["Authorization"]))
                body = json.dumps({"value": service.value}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
