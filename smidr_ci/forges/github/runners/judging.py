"""Which of a scale set's jobs get no runner. GitHub counts them all the same, so we count too."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from smidr_ci.files import make_private_dir, write_atomic
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.runners.messages import Item, ItemKind, Message
from smidr_ci.forges.github.runners.policy import JobPolicy
from smidr_ci.forges.github.runs import WorkflowRuns

__all__ = ["ScaleSetJudge"]

log = logging.getLogger(__name__)

_MOST: Final = 1000


class ScaleSetJudge:
    """For the listener's thread, but for `refused_count` and `news`.

    Refused jobs are kept in a file: a message that was confirmed does not come again.
    """

    def __init__(self, policy: JobPolicy, runs: WorkflowRuns, file: Path) -> None:
        self._policy = policy
        self._runs = runs
        self._file = file
        self._news = threading.Event()
        self._refused = self._load()

    @property
    def refused_count(self) -> int:
        """Jobs that GitHub has given us and that get no runner."""
        return len(self._refused)

    def news(self) -> None:
        """Somebody approved a commit, or changed the settings: decide once more."""
        self._news.set()

    def is_allowed(self, item: Item) -> bool:
        """Whether a job may have a runner; raises `ForgeError` when it can't be known now."""
        if not self._policy.is_needed:
            return True
        if not item.repository or not item.run_id:
            return False
        try:
            run = self._runs.run(item.repository, item.run_id)
        except ForgeError as error:
            if error.status in {403, 404, 410}:
                log.warning("no runner for %r: %s", item.job_name, error)
                return False
            raise
        self._policy.begin_look()
        return self._policy.decide(item.repository, run, item.job_name).is_allowed

    def heard(self, message: Message) -> None:
        """Take over what a message says; raises `ForgeError`."""
        before = dict(self._refused)
        for item in message.of_kind(ItemKind.ASSIGNED):
            if item.request_id and not self.is_allowed(item):
                self._refused[item.request_id] = item
        for kind in (ItemKind.STARTED, ItemKind.COMPLETED):
            for item in message.of_kind(kind):
                self._refused.pop(item.request_id, None)
        while len(self._refused) > _MOST:
            self._refused.popitem(last=False)
        if self._refused != before:
            self._save()

    def again(self) -> None:
        """Decide once more, if there is news."""
        if not self._news.is_set():
            return
        self._news.clear()
        for number, item in list(self._refused.items()):
            try:
                if self.is_allowed(item):
                    del self._refused[number]
            except ForgeError as error:
                log.info("can't decide on %r now: %s", item.job_name, error)
                self._news.set()
        self._save()

    def _load(self) -> OrderedDict[int, Item]:
        try:
            found: Any = json.loads(self._file.read_bytes()[: 1 << 20])
            items = [Item(**{**raw, "kind": ItemKind(raw["kind"])}) for raw in found]
        except (OSError, ValueError, TypeError, KeyError):
            return OrderedDict()
        return OrderedDict((item.request_id, item) for item in items[:_MOST])

    def _save(self) -> None:
        try:
            make_private_dir(self._file.parent)
            text = json.dumps([asdict(item) for item in self._refused.values()])
            write_atomic(self._file, text, mode=0o600)
        except OSError as error:
            log.warning("can't remember which jobs get no runner: %s", error)
