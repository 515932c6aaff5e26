"""Takes a build's newest state to its check run, or to a commit status where that must do.

What is delivered is read when it goes out: after an hour without GitHub one request says it all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.service import BuildView
from smidr_ci.errors import UsageError
from smidr_ci.forges.deliveries import Delivery, GiveUp, RetryLater
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.checks import CheckRuns, CommitStatuses
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.errors import as_delivery_error
from smidr_ci.forges.github.rendering import PER_REQUEST, annotation_list, check_body, status_body
from smidr_ci.forges.github.targets import CheckTarget
from smidr_ci.text import printable

__all__ = ["CHECK", "CheckDeliverer"]

CHECK: Final = "check"
"""Kind of a delivery whose payload is a `CheckTarget`, and `annotate` once the build is over."""

_REMEMBERED: Final = 1000


class CheckDeliverer:
    """Implements `forges.deliveries.Deliverer`; each delivery may be repeated without harm."""

    def __init__(
        self,
        client: GitHubClient,
        view_of: Callable[[str], BuildView],
        *,
        previous_of: Callable[[BuildRecord], BuildRecord | None] | None = None,
        over: Callable[[str], None] | None = None,
    ) -> None:
        """`over` is called with a build id when GitHub knows how the build ended."""
        self._is_app = client.credentials.is_app
        self._runs = CheckRuns(client)
        self._statuses = CommitStatuses(client)
        self._view_of = view_of
        self._previous_of = previous_of or (lambda _record: None)
        self._over = over or (lambda _build_id: None)
        self._lock = threading.Lock()
        self._numbers: OrderedDict[str, int] = OrderedDict()
        self._posted: OrderedDict[tuple[str, str], dict[str, str]] = OrderedDict()
        self._full: OrderedDict[tuple[str, str], None] = OrderedDict()

    def deliver(self, delivery: Delivery) -> None:
        """Bring the check up to date; raises `RetryLater` or `GiveUp`."""
        if delivery.kind != CHECK:
            raise GiveUp(f"nobody knows what a {printable(delivery.kind)[:60]} is")
        build_id = delivery.build_id or ""
        chosen = delivery.payload.get("annotate")
        try:
            target = CheckTarget.from_plain(delivery.payload)
            view = self._view_of(build_id)
            if view.record.state.is_final and chosen is None:
                return  # the delivery with the end is behind this one
            if self._is_app:
                self._bring_check(view, target, chosen or ())
            else:
                self._bring_status(view, target)
        except ForgeError as error:
            told = as_delivery_error(error)
            if isinstance(told, GiveUp) and chosen is not None:
                self._over(build_id)
            raise told from error
        except (TypeError, UsageError) as error:
            self._over(build_id)
            raise GiveUp(f"the build or its check is unknown: {error}") from error
        if view.record.state.is_final:
            self._over(build_id)

    def _bring_check(self, view: BuildView, target: CheckTarget, chosen: Sequence[int]) -> None:
        record = view.record
        is_final = record.state.is_final
        previous = self._previous_of(record) if is_final else None
        body = check_body(view, target, previous)
        wanted = annotation_list(record, target, chosen) if is_final else []
        number = self._number(record.build_id, target)
        if number is None:
            first = wanted[:PER_REQUEST]
            number = self._create(record.build_id, target, _part(body, first, wanted, len(first)))
            if len(wanted) <= PER_REQUEST:
                return
        try:
            if wanted:
                self._append(number, target, body, wanted)
            else:
                self._runs.update(target.repository, number, body)
        except ForgeError as error:
            if error.status == 404:  # gone: the next try looks for another, or makes one
                with self._lock:
                    self._numbers.pop(record.build_id, None)
            raise

    def _append(
        self, number: int, target: CheckTarget, body: dict[str, Any], wanted: list[dict[str, Any]]
    ) -> None:
        """The annotations that GitHub does not have yet; the last request ends the check run."""
        found = self._runs.get(target.repository, number)
        count = found.get("output", {}).get("annotations_count")
        done = min(count if isinstance(count, int) else 0, len(wanted))
        while True:
            batch = wanted[done : done + PER_REQUEST]
            done += len(batch)
            self._runs.update(target.repository, number, _part(body, batch, wanted, done))
            if done >= len(wanted):
                return

    def _create(self, build_id: str, target: CheckTarget, body: dict[str, Any]) -> int:
        try:
            number = self._runs.create(target.repository, {**body, "head_sha": target.head_sha})
        except ForgeError as error:
            if error.status == 0 or error.status >= 500:
                # It may be there all the same; GitHub needs a moment to show it.
                raise RetryLater(str(error), 5.0) from error
            raise
        self._remember(build_id, number)
        return number

    def _number(self, build_id: str, target: CheckTarget) -> int | None:
        """The check run's number. Always looked for unless known: an earlier, lost try made one."""
        with self._lock:
            known = self._numbers.get(build_id)
        if known is not None:
            return known
        run = self._runs.find(target.repository, target.head_sha, target.name, build_id)
        if run is None:
            return None
        self._remember(build_id, int(run["id"]))
        return int(run["id"])

    def _remember(self, build_id: str, number: int) -> None:
        with self._lock:
            self._numbers[build_id] = number
            _trim(self._numbers)

    def _bring_status(self, view: BuildView, target: CheckTarget) -> None:
        body = status_body(view, target)
        key = (target.head_sha, target.name.lower())
        with self._lock:
            if key in self._full:
                raise GiveUp("GitHub takes no more statuses for this commit and name")
            posted = self._posted.get(key)
        if posted is None:
            found = self._statuses.current(target.repository, target.head_sha, target.name) or {}
            posted = {name: str(found[name]) for name in body if found.get(name) is not None}
            posted |= {"context": target.name} if posted else {}
        if posted != body:
            self._post(key, target, body)
        with self._lock:
            self._posted[key] = body
            _trim(self._posted)

    def _post(self, key: tuple[str, str], target: CheckTarget, body: dict[str, str]) -> None:
        try:
            self._statuses.post(target.repository, target.head_sha, body)
        except ForgeError as error:
            with self._lock:
                self._posted.pop(key, None)  # the next try looks what is there
                if error.status == 422 and "maximum number of statuses" in str(error):
                    self._full[key] = None
                    _trim(self._full)
            raise


def _part(
    body: dict[str, Any], batch: list[dict[str, Any]], wanted: list[dict[str, Any]], done: int
) -> dict[str, Any]:
    """A request with some of the annotations; only the one with the last ends the check run."""
    part = {**body, "output": {**body["output"], **({"annotations": batch} if batch else {})}}
    if done < len(wanted):
        part["status"] = "in_progress"
        part.pop("conclusion", None)
        part.pop("completed_at", None)
    return part


def _trim(remembered: OrderedDict[Any, Any]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)
