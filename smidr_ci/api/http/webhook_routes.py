"""`POST /webhooks/github`: taken from anybody, known by its signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from smidr_ci.api.http.guard import WEBHOOK_PATH
from smidr_ci.api.http.service import ServiceOf

__all__ = ["Receipt", "Webhooks", "router"]

router = APIRouter()


class Receipt(Protocol):
    """What whoever sent it is told."""

    @property
    def status(self) -> int:
        """HTTP's."""

    @property
    def text(self) -> str:
        """A word or two."""


class Webhooks(Protocol):
    """Takes a webhook and keeps what it says; `forges.github.webhooks` has one. It may block."""

    def receive(self, headers: Mapping[str, str], body: bytes) -> Receipt:
        """`headers` have names in small letters; `body` is what was signed."""


@router.post(WEBHOOK_PATH, include_in_schema=False)
async def github_webhook(request: Request, service: ServiceOf) -> PlainTextResponse:
    """Answered as soon as it is kept, which GitHub wants within ten seconds."""
    webhooks: Webhooks = request.app.state.webhooks
    body = await request.body()
    receipt = await service.call(webhooks.receive, dict(request.headers), body)
    return PlainTextResponse(f"{receipt.text}\n", receipt.status)
