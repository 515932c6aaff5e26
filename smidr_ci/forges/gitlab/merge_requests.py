"""What a build says on its merge request and commit: one note, kept up to date, and statuses.

Only with an API token (scope `api`, role Developer or more): a job's own token may not write
there. Without one the reports of the job say the same. GitLab docs: "Notes API", "Commits API".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import requests

from smidr_ci.builds.model import BuildRecord, BuildState
from smidr_ci.errors import FailureKind
from smidr_ci.forges.deliveries import Delivery, GiveUp, RetryLater
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.gitlab.reports import JobPage, diagnosis_of
from smidr_ci.forges.gitlab.transport import Transport
from smidr_ci.reports.escape import clip, inline
from smidr_ci.reports.facts import facts_of
from smidr_ci.reports.markdown import NOTE_LIMIT, render_markdown
from smidr_ci.text import printable

if TYPE_CHECKING:
    import gitlab
    from gitlab.base import RESTObject
    from gitlab.v4.objects import ProjectCommit, ProjectMergeRequest

__all__ = [
    "NOTE",
    "STATUS",
    "CommitStatus",
    "MergeRequestNote",
    "MergeRequests",
    "note_of",
    "status_of",
]

NOTE: Final = "merge-request-note"
"""Kind of a delivery whose payload is a `MergeRequestNote`."""
STATUS: Final = "commit-status"
"""Kind of a delivery whose payload is a `CommitStatus`."""

_MARKER: Final = re.compile(r"<!-- smidr:report key=([0-9a-f]{16}) order=(\d{1,18}) -->\n")
_MOST_NOTES: Final = 5000
_TEXT_LIMIT: Final = 255
_TIMEOUT_S: Final = 60.0
_RETRIED: Final = frozenset({408, 409, 429})
_MOST_LINKS: Final = 10
_BODY_LIMIT: Final = 60_000
"""Far below GitLab's: it is stored with the delivery."""


@dataclass(frozen=True)
class MergeRequestNote:
    """The one note of a job's name on a merge request."""

    project_id: int
    merge_request: int
    """Its number in the project (`iid`)."""
    key: str
    """What the note is about, such as the job's name; a merge request has one note per key."""
    order: int
    """Of two notes with the same key the higher wins, whichever comes last: the pipeline's id."""
    body: str

    @property
    def text(self) -> str:
        """The body with the marker by which it is found again."""
        digest = hashlib.sha256(self.key.encode()).hexdigest()[:16]
        marker = f"<!-- smidr:report key={digest} order={self.order:d} -->\n"
        return marker + clip(self.body, NOTE_LIMIT)


@dataclass(frozen=True)
class CommitStatus:
    """A state beside a commit; the same name on the same commit is one status that changes."""

    project_id: int
    sha: str
    name: str
    state: str
    """pending, running, success, failed, canceled or skipped."""
    ref: str = ""
    description: str = ""
    target_url: str = ""
    pipeline_id: int = 0


class MergeRequests:
    """Implements `forges.deliveries.Deliverer`; each call may be repeated without harm.

    What the server asks to wait is the outbox's to wait, so python-gitlab must not sleep here.
    """

    def __init__(self, transport: Transport, token: str) -> None:
        self._transport = transport
        self._token = token
        self._own_id: int | None = None

    def deliver(self, delivery: Delivery) -> None:
        """Bring a note or status there; raises `RetryLater` or `GiveUp`."""
        payload = dict(delivery.payload)
        try:
            if delivery.kind == NOTE:
                self.put_note(MergeRequestNote(**payload))
            elif delivery.kind == STATUS:
                self.set_status(CommitStatus(**payload))
            else:
                raise GiveUp(f"nobody knows what a {printable(delivery.kind)[:60]} is")
        except ForgeError as error:
            if error.status in _RETRIED or error.status == 0 or error.status >= 500:
                raise RetryLater(str(error)) from error
            raise GiveUp(str(error)) from error
        except TypeError as error:
            raise GiveUp(f"the delivery is from another version of smidr: {error}") from error

    def put_note(self, note: MergeRequestNote) -> None:
        """Write the note, or bring the one that is there up to date; raises `ForgeError`."""
        with self._calling("write a note on the merge request") as api:
            request = api.projects.get(note.project_id, lazy=True).mergerequests.get(
                note.merge_request, lazy=True
            )
            own = list(self._own_notes(api, request, note))
            if not own:
                request.notes.create({"body": note.text}, obey_rate_limit=False)
                return
            first, *doubles = own
            found = _MARKER.match(first.body)
            is_newer = found is not None and int(found[2]) > note.order
            if not is_newer and first.body != note.text:
                request.notes.update(first.id, {"body": note.text}, obey_rate_limit=False)
            for double in doubles:  # two agents wrote at the same moment
                request.notes.delete(double.id, obey_rate_limit=False)

    def set_status(self, status: CommitStatus) -> None:
        """Set the status; one that GitLab has already is fine. Raises `ForgeError`."""
        wanted = {
            "state": status.state,
            "name": clip(status.name, _TEXT_LIMIT),
            "description": clip(printable(status.description), _TEXT_LIMIT),
            "ref": status.ref,
            "target_url": status.target_url if len(status.target_url) <= _TEXT_LIMIT else "",
            "pipeline_id": status.pipeline_id,
        }
        given = {key: value for key, value in wanted.items() if value}
        with self._calling("set the commit's status") as api:
            commit = api.projects.get(status.project_id, lazy=True).commits.get(
                status.sha, lazy=True
            )
            try:
                commit.statuses.create(given, obey_rate_limit=False)
            except _api_error() as error:
                if error.response_code != 400 or not _has_state(commit, status):
                    raise

    def _own_notes(
        self,
        api: gitlab.Gitlab,
        request: ProjectMergeRequest,
        note: MergeRequestNote,
    ) -> Iterator[RESTObject]:
        """Ours with the note's key, oldest first: by the marker, and by who wrote it."""
        wanted = _MARKER.match(note.text)
        key = wanted[1] if wanted else ""
        notes = request.notes.list(
            iterator=True, order_by="created_at", sort="asc", per_page=100, obey_rate_limit=False
        )
        for count, item in enumerate(notes):
            if count >= _MOST_NOTES:
                return
            found = _MARKER.match(item.body or "")
            # Anybody can write our marker; GitLab says who did.
            if found and found[1] == key and item.author.get("id") == self._whoami(api):
                yield item

    def _whoami(self, api: gitlab.Gitlab) -> int:
        if self._own_id is None:
            api.auth()
            self._own_id = int(api.user.id) if api.user is not None else -1
        return self._own_id

    @contextmanager
    def _calling(self, action: str) -> Iterator[gitlab.Gitlab]:
        import gitlab  # noqa: PLC0415 - slow to import, and few agents have a token

        api = gitlab.Gitlab(
            self._transport.base.removesuffix("/api/v4/"),
            private_token=self._token,
            session=self._transport.session(),
            timeout=_TIMEOUT_S,
            keep_base_url=True,
        )
        try:
            yield api
        except gitlab.GitlabError as error:
            said = printable(str(error.error_message or ""))[:300]
            raise ForgeError(
                f"can't {action}: the server answers {error.response_code}: {said}",
                where=self._transport.base,
                hint=_HINTS.get(error.response_code or 0, ""),
                status=error.response_code or 0,
            ) from error
        except requests.RequestException as error:
            raise ForgeError(
                f"can't {action}: {printable(str(error))[:300]}", where=self._transport.base
            ) from error


_HINTS: Final = {
    401: "The API token is wrong or has expired: make a new one with the scope api.",
    403: "The API token needs the scope api and the role Developer or more in the project.",
    404: "The API token's user can't see the project, or the merge request is gone.",
}


def _api_error() -> type[gitlab.GitlabError]:
    import gitlab  # noqa: PLC0415 - loaded already

    return gitlab.GitlabError


def _has_state(commit: ProjectCommit, status: CommitStatus) -> bool:
    """Whether an earlier try arrived: GitLab refuses a change to the same state."""
    for item in commit.statuses.list(iterator=True, all=True, name=status.name, per_page=100):
        is_same = not status.ref or item.ref == status.ref
        if item.name == status.name and is_same and item.status == status.state:
            return True
    return False


_STATES: Final[Mapping[BuildState, str]] = {
    BuildState.QUEUED: "pending",
    BuildState.PREPARING: "running",
    BuildState.BUILDING: "running",
    BuildState.EXTRACTING: "running",
    BuildState.COMPLETED: "success",
    BuildState.FAILED: "failed",
    BuildState.CANCELLED: "canceled",
}


def status_of(
    record: BuildRecord, *, project_id: int, sha: str, name: str, ref: str, page: JobPage
) -> CommitStatus:
    """A build's state as a commit status."""
    first = record.failure_message.splitlines()[:1]
    host = record.failure_kind is not None and record.failure_kind.is_infrastructure
    why = f"{'build host: ' if host else ''}{first[0]}" if first else str(record.state)
    if record.failure_kind is FailureKind.CANCELLED:
        why = "cancelled"
    return CommitStatus(
        project_id=project_id,
        sha=sha,
        name=name,
        state=_STATES[record.state],
        ref=ref,
        description=why,
        target_url=page.job_url,
    )


def note_of(
    record: BuildRecord,
    previous: BuildRecord | None,
    page: JobPage,
    *,
    project_id: int,
    merge_request: int,
    key: str,
    order: int,
) -> MergeRequestNote:
    """A build's summary as a note."""
    text = render_markdown(
        diagnosis_of(record, page.config_path), facts_of(record, previous), limit=_BODY_LIMIT
    )
    links = f"\n[Job {inline(key)}]({page.job_url})\n" if _is_plain_url(page.job_url) else ""
    text += _stored_links(page) + links
    return MergeRequestNote(project_id, merge_request, key, order, text)


def _stored_links(page: JobPage) -> str:
    """Files that GitLab did not take."""
    lines = [
        f"- [{inline(label)}]({url})" if _is_plain_url(url) else f"- {inline(label)}"
        for label, url in page.stored[:_MOST_LINKS]
    ]
    head = ["", "Too big for GitLab, and stored elsewhere:", ""] if lines else []
    return "\n".join([*head, *lines, ""])


def _is_plain_url(url: str) -> bool:
    return re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!$&*+,;=%\[\]-]+", url) is not None
