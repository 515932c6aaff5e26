"""Changes a runner's token before it expires."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import Final

from smidr_ci.clock import Clock
from smidr_ci.errors import SmidrError
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.answers import expiry_of
from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.registration import Registration, Registrations

__all__ = ["is_rotation_due", "rotate", "with_credentials"]

log = logging.getLogger(__name__)

_SHARE: Final = 0.75


def is_rotation_due(registration: Registration, now: datetime) -> bool:
    """Whether three quarters of the token's life are over."""
    begin, end = registration.token_obtained, registration.token_expires
    if end is None:
        return False
    return begin is None or now >= begin + (end - begin) * _SHARE


def with_credentials(registration: Registration, answer: object, now: datetime) -> Registration:
    """The registration with the token and expiry of an answer; raises `ForgeError`."""
    found = answer if isinstance(answer, dict) else {}
    token = found.get("token") or registration.token
    number = found.get("id")
    if not isinstance(token, str) or any(sign.isspace() for sign in token):
        raise ForgeError("the server's answer has no usable token", where=registration.url)
    return replace(
        registration,
        token=token,
        runner_id=number if isinstance(number, int) else registration.runner_id,
        token_obtained=now,
        token_expires=expiry_of(found),
    )


def rotate(
    registration: Registration, registrations: Registrations, client: RunnerClient, clock: Clock
) -> Registration:
    """Get a new token, store it, then use it; the old one is dead then.

    What else the stored registration says may have changed meanwhile, and stays. Raises
    `ForgeError` when the server gives none. One that can't be stored is used until the agent ends.
    """
    changed = with_credentials(registration, client.reset_token(), clock.now())
    client.token = changed.token
    try:
        kept = _with_token(registrations.load(registration.name), changed)
        registrations.save(kept)
    except SmidrError as error:
        log.error("the new token of %s is lost when the agent ends: %s", registration.name, error)  # noqa: TRY400 - no fault of ours
        return changed
    log.info("changed the token of %s", registration.name)
    return kept


def _with_token(stored: Registration, changed: Registration) -> Registration:
    return replace(
        stored,
        token=changed.token,
        runner_id=changed.runner_id,
        token_obtained=changed.token_obtained,
        token_expires=changed.token_expires,
    )
