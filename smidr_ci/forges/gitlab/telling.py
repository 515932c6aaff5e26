"""What a job's build says on its commit and merge request, put into the agent's outbox.

Only for registrations with an API token. What is told goes by the server's data: a job's variables
could name somebody else's merge request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from smidr_ci.builds.model import BuildRecord
from smidr_ci.config.host_files import read_secret
from smidr_ci.errors import ConfigError
from smidr_ci.forges.deliveries import Delivery, Outgoing, RetryLater
from smidr_ci.forges.external import PlacedFile
from smidr_ci.forges.gitlab.context import JobContext
from smidr_ci.forges.gitlab.jobpage import page_of
from smidr_ci.forges.gitlab.merge_requests import NOTE, STATUS, MergeRequests, note_of, status_of
from smidr_ci.forges.gitlab.transport import Transport
from smidr_ci.forges.gitlab.trust import merge_request_of

__all__ = ["ApiDeliverer", "Teller", "receiver_prefix"]

_AGAIN_S: Final = 60.0


def receiver_prefix(registration: str) -> str:
    """How the names of the receivers of one registration begin."""
    return f"gitlab:{registration}:"


@dataclass(frozen=True)
class Teller:
    """Takes a job's build when it was ordered and when it is over."""

    outgoing: Outgoing
    previous_of: Callable[[BuildRecord], BuildRecord | None]

    def __call__(
        self, context: JobContext, record: BuildRecord, placed: Sequence[PlacedFile] = ()
    ) -> None:
        """Put what there is to say; the same twice is once. Raises `SmidrError`.

        `placed` are files that GitLab did not take.
        """
        if context.registration.api_token_file is None:
            return
        self._put_status(context, record)
        if record.state.is_final:
            self._put_note(context, record, placed)

    def _put_status(self, context: JobContext, record: BuildRecord) -> None:
        job = context.job
        ref = "" if job.git_info.ref.startswith("refs/") else job.git_info.ref
        status = status_of(
            record,
            project_id=job.info.project_id,
            sha=job.git_info.sha,
            name=f"smidr: {job.info.name}",
            ref=ref,
            page=page_of(job),
        )
        status = replace(status, pipeline_id=job.info.pipeline_id)
        self.outgoing.put(
            _receiver(context),
            f"{record.build_id} {status.state}",
            STATUS,
            asdict(status),
            build_id=record.build_id,
            supersedes=True,
        )

    def _put_note(
        self, context: JobContext, record: BuildRecord, placed: Sequence[PlacedFile]
    ) -> None:
        job = context.job
        number = merge_request_of(job)
        if number is None:
            return
        note = note_of(
            record,
            self.previous_of(record),
            page_of(job, placed=placed),
            project_id=job.info.project_id,
            merge_request=number,
            key=job.info.name,
            order=job.info.pipeline_id,
        )
        self.outgoing.put(
            _receiver(context),
            f"{record.build_id} note{' with links' if placed else ''}",
            NOTE,
            asdict(note),
            build_id=record.build_id,
        )


def _receiver(context: JobContext) -> str:
    return f"{receiver_prefix(context.registration.name)}job:{context.job.id}"


class ApiDeliverer:
    """Implements `Deliverer` with the token that a file holds at the time."""

    def __init__(self, transport: Transport, token_file: Path) -> None:
        self._transport = transport
        self._token_file = token_file
        self._made: tuple[str, MergeRequests] | None = None

    def deliver(self, delivery: Delivery) -> None:
        """Bring a note or status there; raises `RetryLater` or `GiveUp`."""
        try:
            token = read_secret(self._token_file).strip()
        except ConfigError as error:
            raise RetryLater(str(error), _AGAIN_S) from error
        if self._made is None or self._made[0] != token:
            self._made = (token, MergeRequests(self._transport, token))
        self._made[1].deliver(delivery)
