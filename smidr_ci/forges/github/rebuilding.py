"""Builds something once more because somebody asked for it on GitHub."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.order import order_of
from smidr_ci.builds.service import BuildService
from smidr_ci.errors import UsageError
from smidr_ci.files import as_host_error, make_marked_dir, make_private_dir, remove_marked_tree
from smidr_ci.forges.github.auth import Scope
from smidr_ci.forges.github.client import GitHubClient
from smidr_ci.forges.github.exchange import Call
from smidr_ci.forges.github.targets import JOB_PAGE
from smidr_ci.home import Home

__all__ = ["Rebuilds", "Rerun", "has_own_source"]

_RECENT: Final = 200


@dataclass(frozen=True)
class Rerun:
    """What is asked for."""

    repository: str
    build_id: str
    """The build that is to be repeated."""
    details_url: str
    """Of its check run."""
    asked_by: str
    key: str
    """The same at each try."""
    is_clean: bool = False


class Rebuilds:
    """A build with sources of its own is repeated here; one of a job by running the job again."""

    def __init__(
        self,
        service: BuildService,
        home: Home,
        client: GitHubClient,
        recent: Callable[[str], list[BuildRecord]],
    ) -> None:
        """`recent` lists a customer's newest builds, for whether a try before this one arrived."""
        self._service = service
        self._home = home
        self._client = client
        self._recent = recent

    def rebuild(self, wish: Rerun) -> str:
        """The new build's id; empty when the job will order it. Raises `SmidrError`."""
        record = self._service.view(wish.build_id).record
        if has_own_source(record, self._home):
            return self._build_again(record, wish)
        match = JOB_PAGE.match(wish.details_url)
        if match is None or match[1].lower() != wish.repository.lower():
            raise UsageError(
                f"the sources of build {record.build_id} are not kept on this host",
                hint="Run the workflow's job again.",
            )
        what = f"jobs/{int(match[3]):d}" if match[3] else f"runs/{int(match[2]):d}"
        path = f"/repos/{wish.repository}/actions/{what}/rerun"
        scope = Scope.of(wish.repository, actions="write")
        call = Call("POST", path, is_repeatable=False)
        self._client.send(call, scope, action="run the job again")
        return ""

    def _build_again(self, record: BuildRecord, wish: Rerun) -> str:
        mark = f"github re-run {wish.key}"
        for item in self._recent(record.customer)[:_RECENT]:
            if item.requested_by.endswith(mark):
                return item.build_id
        source = self._copy(order_of(record).directory)
        order = replace(
            order_of(record),
            directory=source,
            clean=wish.is_clean,
            requested_by=f"{wish.asked_by}: {mark}",
        )
        try:
            return self._service.submit(order, source).build_id
        except BaseException:
            remove_marked_tree(source, self._home.incoming)
            raise

    def _copy(self, source: Path) -> Path:
        target = make_private_dir(self._home.incoming) / secrets.token_hex(8)
        try:
            make_marked_dir(target)
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
            target.chmod(0o755)  # builds run as other users; `incoming` is private
        except OSError as error:  # shutil.Error is one too
            remove_marked_tree(target, self._home.incoming)
            raise as_host_error(error, "can't copy the build's sources", source) from error
        return target


def has_own_source(record: BuildRecord, home: Home) -> bool:
    """Whether what was built is still here as it was; a job's workspace changes."""
    own = home.builds / record.build_id / "source"
    return record.order.get("directory") == str(own) and own.is_dir()
