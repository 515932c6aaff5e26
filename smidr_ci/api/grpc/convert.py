"""Our dataclasses and the messages of smidr.proto, both ways.

Fields have the same names on both sides, so that the messages' descriptors say all there is to
know; a test finds a field that only one side has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from smidr_ci.agent.status import AgentStatus
from smidr_ci.api.client import StartRequest
from smidr_ci.api.grpc.generated import smidr_pb2 as pb
from smidr_ci.bitbake.progress import Progress
from smidr_ci.builds.model import ArtifactRecord, BuildRecord, BuildState
from smidr_ci.builds.service import BuildView, Note
from smidr_ci.builds.views import from_plain, plain
from smidr_ci.diagnosis.model import Severity
from smidr_ci.errors import FailureKind, HostError
from smidr_ci.trust import Trust

__all__ = [
    "artifact_from",
    "artifact_message",
    "build_message",
    "enum_from",
    "enum_value",
    "moment_from",
    "moment_message",
    "progress_from",
    "progress_message",
    "record_from",
    "start_message",
    "start_request_from",
    "status_from",
    "status_message",
    "summary_message",
    "view_from",
    "watch_message",
]

_Kind = TypeVar("_Kind", bound=Message)
_Word = TypeVar("_Word", bound=StrEnum)
_Made = TypeVar("_Made")
_Field = Any
"""A `FieldDescriptor`, of which protobuf's types know two."""

_WORDS: Final[Mapping[str, type[StrEnum]]] = {
    "BuildState": BuildState,
    "FailureKind": FailureKind,
    "Severity": Severity,
    "Trust": Trust,
}
_STAMP: Final = Timestamp.DESCRIPTOR.full_name
_SPARSE: Final = frozenset({pb.RebuildReason.DESCRIPTOR.full_name})
"""What is not known is left out; elsewhere it is None."""
_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")
_HEAVY: Final = ("config_text", "layer_commits", "findings", "artifacts", "rebuilt")


def build_message(record: BuildRecord) -> pb.Build:
    """A record without its order, which is nobody else's business."""
    return _filled(pb.Build, plain(record))


def summary_message(record: BuildRecord) -> pb.Build:
    """A record without what lists leave out."""
    light = {name: value for name, value in plain(record).items() if name not in _HEAVY}
    return _filled(pb.Build, {**light, "is_summary": True})


def record_from(message: pb.Build) -> BuildRecord:
    """The record; raises `HostError` for a message that an agent of ours doesn't send."""
    return _made(BuildRecord, _plain(message))


def progress_message(progress: Progress) -> pb.Progress:
    """Where BitBake is."""
    raw = plain(progress)
    running = [{"pid": int(pid), **task} for pid, task in raw["running"].items()]
    return _filled(pb.Progress, {**raw, "running": running})


def progress_from(message: pb.Progress) -> Progress:
    """Where BitBake is; raises `HostError`."""
    raw = _plain(message)
    running = {str(task["pid"]): task for task in raw["running"]}
    return _made(Progress, {**raw, "running": running})


def watch_message(view: BuildView, *, after_note: int, agent_run: str) -> pb.WatchBuildResponse:
    """A view with the notes after that number, without its record."""
    return pb.WatchBuildResponse(
        version=view.version,
        progress=None if view.progress is None else progress_message(view.progress),
        notes=[
            pb.Note(number=note.number, text=_text(note.text))
            for note in view.notes
            if note.number > after_note
        ],
        waiting_for=_text(view.waiting_for),
        agent_run=agent_run,
    )


def view_from(message: pb.WatchBuildResponse, record: BuildRecord) -> BuildView:
    """The view, with the record that came with it or before; raises `HostError`."""
    return BuildView(
        version=message.version,
        record=record,
        progress=progress_from(message.progress) if message.HasField("progress") else None,
        notes=tuple(Note(note.number, note.text) for note in message.notes),
        waiting_for=message.waiting_for,
    )


def status_message(status: AgentStatus) -> pb.AgentStatus:
    """One moment of the agent."""
    raw = plain(status)
    queued = [{"build_id": name, "waiting_for": why} for name, why in raw["queued"].items()]
    return _filled(pb.AgentStatus, {**raw, "queued": queued})


def status_from(message: pb.AgentStatus) -> AgentStatus:
    """One moment of the agent; raises `HostError`."""
    raw = _plain(message)
    queued = {item["build_id"]: item["waiting_for"] for item in raw["queued"]}
    return _made(AgentStatus, {**raw, "queued": queued})


def artifact_message(artifact: ArtifactRecord) -> pb.Artifact:
    """One file of a build."""
    return _filled(pb.Artifact, plain(artifact))


def artifact_from(message: pb.Artifact) -> ArtifactRecord:
    """One file of a build."""
    return ArtifactRecord(message.path, message.size_bytes, message.sha256)


def start_message(request: StartRequest) -> pb.StartBuildRequest:
    """What a client asks for; its `directory` has no place here."""
    raw = {name: getattr(request, name) for name in pb.StartBuildRequest.DESCRIPTOR.fields_by_name}
    return _filled(pb.StartBuildRequest, raw)


def start_request_from(message: pb.StartBuildRequest) -> StartRequest:
    """What a client asks for."""
    raw = _plain(message)
    return StartRequest(**{**raw, "targets": tuple(raw["targets"])})


def enum_value(descriptor: EnumDescriptor, word: StrEnum | None) -> int:
    """The number of `BuildState.QUEUED` in the enum `BuildState`; 0 for None."""
    return 0 if word is None else descriptor.values_by_name[_prefix(descriptor) + word.name].number


def enum_from(descriptor: EnumDescriptor, words: type[_Word], number: int) -> _Word | None:
    """The word for a number; None for 0. Raises `HostError` for one of a newer agent."""
    if number == 0:
        return None
    found = descriptor.values_by_number.get(number)
    name = "" if found is None else found.name.removeprefix(_prefix(descriptor))
    if name not in words.__members__:
        raise _newer(f"{descriptor.name} {number}")
    return words[name]


def moment_message(moment: datetime | None) -> Timestamp | None:
    """A time, to the microsecond."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def moment_from(stamp: Timestamp) -> datetime:
    """A time, in UTC; raises `ValueError` for one outside of the years 1 to 9999."""
    return stamp.ToDatetime(UTC)


def _filled(kind: type[_Kind], raw: Mapping[str, Any]) -> _Kind:
    """A message from plain values; keys that it does not have are passed over."""
    message = kind()
    for name, field in kind.DESCRIPTOR.fields_by_name.items():
        value = raw.get(name)
        if value is None:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            pairs = {_text(str(key)): _scalar_in(item) for key, item in value.items()}
            getattr(message, name).update(pairs)
        elif field.is_repeated:
            getattr(message, name).extend(_value_in(field, item) for item in value)
        elif field.message_type is not None:
            getattr(message, name).CopyFrom(_value_in(field, value))
        else:
            setattr(message, name, _value_in(field, value))
    return message


def _value_in(field: _Field, value: Any) -> Any:  # noqa: ANN401 - as the field is
    if field.enum_type is not None:
        return enum_value(field.enum_type, _WORDS[field.enum_type.name](value))
    if field.message_type is None:
        return _scalar_in(value)
    if field.message_type.full_name == _STAMP:
        return moment_message(datetime.fromisoformat(value))
    return _filled(GetMessageClass(field.message_type), value)


def _scalar_in(value: Any) -> Any:  # noqa: ANN401 - any scalar
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    """Without lone surrogates, which JSON from a container may have and UTF-8 may not."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _plain(message: Message) -> dict[str, Any]:
    """What `_filled` makes a message from."""
    is_sparse = message.DESCRIPTOR.full_name in _SPARSE
    raw: dict[str, Any] = {}
    for name, field in message.DESCRIPTOR.fields_by_name.items():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            raw[name] = dict(getattr(message, name))
        elif field.is_repeated:
            raw[name] = [_value_out(field, item) for item in getattr(message, name)]
        elif not field.has_presence or message.HasField(name):
            raw[name] = _value_out(field, getattr(message, name))
        elif not is_sparse:
            raw[name] = None
    return raw


def _value_out(field: _Field, value: Any) -> Any:  # noqa: ANN401 - as the field is
    if field.enum_type is not None:
        word = enum_from(field.enum_type, _WORDS[field.enum_type.name], value)
        return None if word is None else str(word)
    if field.message_type is None:
        return value
    if field.message_type.full_name == _STAMP:
        return moment_from(value).isoformat()
    return _plain(value)


def _made(kind: type[_Made], raw: Mapping[str, Any]) -> _Made:
    try:
        return from_plain(kind, raw)
    except ValueError as error:
        raise _newer(str(error)) from error


def _prefix(descriptor: EnumDescriptor) -> str:
    """`BUILD_STATE_` for `BuildState`."""
    return _CAPITAL.sub("_", descriptor.name).upper() + "_"


def _newer(what: str) -> HostError:
    return HostError(
        f"the agent's answer makes no sense here: {what}",
        hint="The agent is of another version. Use the same version of smidr on both ends.",
    )
