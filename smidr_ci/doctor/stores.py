"""Checks of the stores outside of this host that the operator has set up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Final

import requests

from smidr_ci.config.stores import StoreSettings
from smidr_ci.doctor.model import CheckResult, fine, warned
from smidr_ci.errors import SmidrError
from smidr_ci.stores.opening import open_store
from smidr_ci.stores.probe import probe_store

__all__ = ["check_store"]

_TIMEOUT_S: Final = 2.0


def check_store(name: str, settings: StoreSettings) -> Sequence[CheckResult]:
    """Write, find, read and delete an object, and follow the link that readers get."""
    seen: list[str] = []

    def look(url: str, raw: bytes) -> None:
        seen.append(_followed(url, raw))

    try:
        with closing(open_store(settings, pause=lambda _seconds: None)) as store:
            probe_store(store, look)
    except SmidrError as error:
        detail = f"{error.where}: {error.message}" if error.where else error.message
        return [warned(name, detail, error.hint or f"Mend {settings.url}, or its settings")]
    done = f"{settings.url} was written, read and deleted"
    link = seen[0] if seen else "readers get no link: public_url is not set"
    if seen and link:
        remedy = "Check public_url of the store, and the server behind it"
        return [warned(f"links of {name}", f"{done}, but {link}", remedy)]
    return [fine(name, f"{done}; {link}" if link else f"{done}, and its links work")]


def _followed(url: str, raw: bytes) -> str:
    """What is wrong with a link; empty when nothing is."""
    shown = url.partition("?")[0]  # the rest may be a signature
    try:
        with requests.get(url, auth=_no_login, timeout=_TIMEOUT_S, stream=True) as answer:
            content = answer.raw.read(len(raw) + 1)
    except requests.RequestException:
        return f"nobody answers at {shown}"
    if answer.status_code != 200:
        return f"{shown} answers {answer.status_code} to a reader without login"
    return "" if content == raw else f"{shown} gives something else than what was stored"


def _no_login(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Readers have none of what ~/.netrc has for the host."""
    return request
