"""Who may use the API from elsewhere: tokens, of which only a hash is stored."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import insert, or_, select, update

from smidr_ci.api.callers import Scope
from smidr_ci.api.secret import id_of_secret, new_id, new_secret
from smidr_ci.builds.database import Database
from smidr_ci.builds.tables import tokens
from smidr_ci.clock import Clock, SystemClock
from smidr_ci.errors import ConflictError, HostError, NotFoundError, UsageError

__all__ = ["TokenInfo", "TokenStore"]

_LOG: Final = logging.getLogger(__name__)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USE_NOTED_EVERY: Final = timedelta(minutes=1)
_NO_DIGEST: Final = "0" * 64


@dataclass(frozen=True)
class TokenInfo:
    """What may be told of a token: everything but the secret."""

    token_id: str
    name: str
    scope: Scope
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None
    """To the minute."""

    def why_unusable(self, now: datetime) -> str:
        """`revoked`, `expired`, or nothing."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else ""


class TokenStore:
    """The tokens in an SQL database; safe from several threads and processes.

    All methods raise `HostError` when the database can't be used.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._noted: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def create(
        self, name: str, scope: Scope, expires: datetime | None = None
    ) -> tuple[TokenInfo, str]:
        """A new token and its secret, which can't be had again.

        Raises `UsageError` for a bad name, a time that is over, or a name that is in use.
        """
        now = self._clock.now()
        if _NAME.fullmatch(name) is None:
            raise UsageError(
                f"{name[:80]!r} can't be the name of a token",
                hint="Use letters, digits and . _ - (at most 64, a letter or digit first).",
            )
        if expires is not None and expires <= now:
            raise UsageError("the token would have expired already", hint="Choose a later time.")
        with self._database.writing() as connection:
            # A revoked token stays for history; its name is free again.
            taken = select(tokens.c.token_id).where(
                tokens.c.name == name, tokens.c.revoked.is_(None)
            )
            if connection.execute(taken).first() is not None:
                raise ConflictError(
                    f"there is a token {name} already",
                    hint=f"Choose another name, or first: smidr token revoke {name}",
                )
            known = set(connection.execute(select(tokens.c.token_id)).scalars())
            token_id = next(one for one in iter(new_id, None) if one not in known)
            secret = new_secret(token_id)
            info = TokenInfo(token_id, name, scope, created=now, expires=expires)
            connection.execute(insert(tokens).values(_values_of(info, _digest(secret))))
        return info, secret

    def list(self) -> list[TokenInfo]:
        """All tokens, also those that are revoked or expired, in the order of their making."""
        query = select(tokens).order_by(tokens.c.created, tokens.c.token_id)
        with self._database.reading() as connection:
            return [_info_from(row._asdict()) for row in connection.execute(query)]

    def has_any(self) -> bool:
        """Whether a token was ever made and not revoked."""
        query = select(tokens.c.token_id).where(tokens.c.revoked.is_(None)).limit(1)
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def revoke(self, name_or_id: str) -> TokenInfo:
        """Let a token open nothing any more, at once; raises `NotFoundError`."""
        this = or_(tokens.c.token_id == name_or_id, tokens.c.name == name_or_id)
        query = select(tokens).where(this, tokens.c.revoked.is_(None))
        with self._database.writing() as connection:
            found = [_info_from(row._asdict()) for row in connection.execute(query)]
            if not found:
                raise NotFoundError(
                    f"there is no token {name_or_id[:80]!r} that could be revoked",
                    hint="'smidr token list' shows all tokens.",
                )
            # A name that looks like another token's id: the id is meant.
            info = next((one for one in found if one.token_id == name_or_id), found[0])
            now = self._clock.now()
            change = update(tokens).where(tokens.c.token_id == info.token_id)
            connection.execute(change.values(revoked=now))
        return _info_from({**_values_of(info, ""), "revoked": now})

    def check(self, secret: str) -> TokenInfo | None:
        """The token with this secret, if it is good for anything now; see `examine`."""
        return self.examine(secret)[0]

    def examine(self, secret: str) -> tuple[TokenInfo | None, str]:
        """The token with this secret; or None and why it is refused, for the log only.

        Raises `HostError` when the database can't be read.
        """
        token_id = id_of_secret(secret)
        if token_id is None:
            return None, "a token without the form of one"
        query = select(tokens).where(tokens.c.token_id == token_id)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        is_right = hmac.compare_digest(row.digest if row else _NO_DIGEST, _digest(secret))
        if row is None or not is_right:
            return None, f"token {token_id}, {'wrong secret' if row else 'unknown'}"
        info = _info_from(row._asdict())
        now = self._clock.now()
        why = info.why_unusable(now)
        if why:
            return None, f"token {info.name} ({token_id}), {why}"
        self._note_use(info, now)
        return info, ""

    def _note_use(self, info: TokenInfo, now: datetime) -> None:
        with self._lock:
            last = max(filter(None, (self._noted.get(info.token_id), info.last_used)), default=None)
            if last is not None and now - last < _USE_NOTED_EVERY:
                return
            self._noted[info.token_id] = now
        change = update(tokens).where(tokens.c.token_id == info.token_id)
        try:
            with self._database.writing() as connection:
                connection.execute(change.values(last_used=now))
        except HostError as error:  # a full disk must not lock anybody out
            _LOG.warning("can't note the use of token %s: %s", info.name, error.message)


def _digest(secret: str) -> str:
    # The secret has 256 random bits: a slow hash would protect nothing more.
    return hashlib.sha256(secret.encode()).hexdigest()


def _values_of(info: TokenInfo, digest: str) -> dict[str, Any]:
    return {
        "token_id": info.token_id,
        "name": info.name,
        "digest": digest,
        "scope": str(info.scope),
        "created": info.created,
        "expires": info.expires,
        "revoked": info.revoked,
        "last_used": info.last_used,
    }


def _info_from(row: Mapping[str, Any]) -> TokenInfo:
    values = {key: value for key, value in row.items() if key != "digest"}
    return TokenInfo(**{**values, "scope": Scope(row["scope"])})
