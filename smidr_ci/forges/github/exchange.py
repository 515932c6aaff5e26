"""One call of GitHub's REST API as data: what is asked, what is answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from requests.structures import CaseInsensitiveDict
from requests.utils import parse_header_links

from smidr_ci.forges.errors import ForgeError
from smidr_ci.text import printable

__all__ = ["Call", "Reply"]

_HINTS: Final = {
    401: "Is the token or the App's key still valid, and this host's clock right?",
    403: "The App or token lacks a permission for this; see docs/github-app.md.",
    404: "Is the App installed on the repository, and may the token see it?",
}


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    """Below the API's address, beginning with a slash."""
    params: Mapping[str, str | int] = field(default_factory=dict)
    json: Any = None
    resource: str = "core"
    """Which of GitHub's primary rate limits it counts for."""
    is_repeatable: bool = True
    """Sending it twice does no harm, so a lost answer may be asked for again."""

    @property
    def is_write(self) -> bool:
        """GitHub wants these one at a time."""
        return self.method not in {"GET", "HEAD"}


@dataclass(frozen=True)
class Reply:
    """One answer, whole."""

    status: int
    headers: CaseInsensitiveDict[str]
    body: bytes
    url: str
    is_unchanged: bool = False
    """The body is that of an earlier answer, which still holds."""

    @property
    def is_success(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300

    def json(self) -> Any:  # noqa: ANN401 - whatever the server sent
        """The body; raises `ForgeError` when it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ForgeError(
                f"the answer is not JSON: {printable(str(error))[:200]}",
                where=self.url,
                hint="Is there a login page or proxy between this host and GitHub?",
                status=self.status,
            ) from error

    def object(self) -> dict[str, Any]:
        """The body, which must be a JSON object; raises `ForgeError`."""
        found = self.json()
        if not isinstance(found, dict):
            raise ForgeError("the answer is no object", where=self.url, status=self.status)
        return found

    @property
    def message(self) -> str:
        """What GitHub says about an error, in one line; empty when it says nothing."""
        try:
            found = json.loads(self.body[:100_000])
        except (ValueError, RecursionError):
            return ""
        if not isinstance(found, dict):
            return ""
        parts = [str(found.get("message") or found.get("msg") or "")]
        errors = found.get("errors")
        for item in errors if isinstance(errors, list) else ():
            said = item.get("message") or item.get("code") if isinstance(item, dict) else item
            parts.append(str(said or ""))
        return printable("; ".join(part for part in parts if part))[:500]

    @property
    def next_page(self) -> str:
        """The URL of the page after this one; empty at the last."""
        for link in parse_header_links(self.headers.get("Link", "")):
            if link.get("rel") == "next":
                return str(link.get("url", ""))
        return ""

    def failure(self, action: str) -> ForgeError:
        """The error for an answer that is none of the good ones."""
        said = self.message
        request = printable(self.headers.get("X-GitHub-Request-Id", ""))[:80]
        named = f" (request {request})" if request else ""
        return ForgeError(
            f"can't {action}: GitHub answers {self.status}{': ' if said else ''}{said}{named}",
            where=self.url,
            hint=_HINTS.get(self.status, ""),
            status=self.status,
        )
