"""What is sent as it grows or in pieces: changes of a build, its log, its artifacts."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from smidr_ci.api.artifact_files import OpenArtifact
from smidr_ci.api.growth import tail_start
from smidr_ci.api.http.errors import answer_for
from smidr_ci.api.http.models import Error, Wishes
from smidr_ci.api.http.service import CallerOf, Service, ServiceOf
from smidr_ci.api.http.stream import BrokenStreamError, Stream
from smidr_ci.builds.logbook import LogReader
from smidr_ci.builds.service import BuildView
from smidr_ci.builds.views import view_as_dict

__all__ = ["router"]

router = APIRouter(prefix="/api/v1", tags=["builds"])
_HEARTBEAT_S: Final = 15.0
_CHUNK_BYTES: Final = 256 * 1024
_RANGE: Final = re.compile(r"bytes=([0-9]{1,18})?-([0-9]{1,18})?")
_BINARY: Final[dict[str, Any]] = {
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
}


@router.get(
    "/builds/{build_id}/watch",
    summary="A build now and after each change, until it is over",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def watch(
    service: ServiceOf,
    caller: CallerOf,
    build_id: str,
    notes_after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    instance: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """One JSON object per line, of the form that `status` gives; empty lines say "still there".

    Each has only notes that came since the one before; the first, those numbered higher than
    `notes_after`. A connection that breaks before a final state can be made again: give the last
    note's number then, and as `instance` what the header X-Smidr-Instance said, since an agent
    that was restarted numbers notes anew.
    """
    operations = service.operations
    found = await service.call(operations.view, caller, build_id)
    full_id = found.record.build_id
    views = service.views.watch(
        full_id,
        partial(operations.view, caller, full_id),
        partial(operations.subscribe, caller, full_id),
    )
    if instance not in {"", service.instance}:
        notes_after = 0
    return Stream(
        _lines_of(views, notes_after),
        media_type="application/x-ndjson",
        headers={"X-Smidr-Instance": service.instance},
    )


@router.get(
    "/builds/{build_id}/log",
    summary="A build's console",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def log(
    service: ServiceOf,
    caller: CallerOf,
    build_id: str,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
    tail: Annotated[int | None, Query(ge=0, le=1_000_000)] = None,
    follow: bool = False,
) -> Response:
    """Raw bytes from `offset`, or from so many lines before the end with `tail`.

    The header X-Smidr-Offset has the offset of the first byte; it is 0 when the log has fewer
    bytes than `offset`. With `follow` it goes on until the build is over.
    """
    operations = service.operations
    full_id, path = await service.call(operations.log_path, caller, build_id)
    if tail is not None:
        offset = await service.call(tail_start, path, tail)
    else:
        with LogReader(path) as reader:
            offset = offset if offset <= reader.size else 0
    if follow:
        chunks = service.logs.follow(
            path,
            offset,
            partial(operations.is_over, full_id),
            partial(operations.subscribe, caller, full_id),
        )
    else:
        chunks = service.logs.read(path, offset)
    headers = {"X-Smidr-Offset": str(offset), "X-Smidr-Build": full_id}
    return Stream(_contiguous(chunks, offset), media_type="text/plain", headers=headers)


@router.get(
    "/builds/{build_id}/artifacts/{path:path}",
    summary="One file of a build",
    response_class=Response,
    responses={200: _BINARY, 206: _BINARY, 416: {"model": Error}},
)
async def artifact(
    service: ServiceOf,
    caller: CallerOf,
    build_id: str,
    path: str,
    wishes: Annotated[Wishes, Header()],
) -> Response:
    """By exactly the path that the list has; the ETag is its SHA-256. One Range is understood."""
    found = await service.call(service.operations.open_artifact, caller, build_id, path)
    tag = f'"{found.sha256}"'
    headers = {"ETag": tag, "Accept-Ranges": "bytes", "Content-Disposition": _disposition(path)}
    if wishes.if_none_match == tag:
        found.file.close()
        return Response(status_code=304, headers=headers)
    wanted = _range_of(wishes.range if wishes.if_range in {None, tag} else None, found.size_bytes)
    if wanted is None:
        found.file.close()
        total = {"Content-Range": f"bytes */{found.size_bytes}"}
        return answer_for(416, "the file has no such range", headers=total)
    start, end = wanted
    is_part = (start, end) != (0, found.size_bytes)
    if is_part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size_bytes}"
    headers["Content-Length"] = str(end - start)
    return Stream(
        _pieces(service, found, start, end),
        media_type="application/octet-stream",
        status=206 if is_part else 200,
        headers=headers,
        on_close=found.file.close,
    )


async def _lines_of(
    views: AsyncIterator[BuildView], notes_after: int
) -> AsyncGenerator[bytes, None]:
    """Views as JSON lines, each with new notes only; an empty line when nothing comes."""
    async with aclosing(views) as source:  # type: ignore[type-var] # a generator, says growth.py
        waiting = asyncio.ensure_future(anext(source, None))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=_HEARTBEAT_S)
                if not done:
                    yield b"\n"
                    continue
                view = waiting.result()
                if view is None:
                    return
                waiting = asyncio.ensure_future(anext(source, None))
                fresh = tuple(note for note in view.notes if note.number > notes_after)
                notes_after = fresh[-1].number if fresh else notes_after
                raw = view_as_dict(replace(view, notes=fresh))
                yield json.dumps(raw, separators=(",", ":")).encode() + b"\n"
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})


async def _contiguous(
    chunks: AsyncIterator[tuple[int, bytes]], offset: int
) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks) as source:  # type: ignore[type-var] # a generator, says growth.py
        async for start, chunk in source:
            if start != offset:  # the log begins anew, which raw bytes can't say
                raise BrokenStreamError
            yield chunk
            offset += len(chunk)


async def _pieces(
    service: Service, artifact: OpenArtifact, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    handle = artifact.file.fileno()
    while start < end:
        piece = await service.call(os.pread, handle, min(_CHUNK_BYTES, end - start), start)
        if not piece:
            raise BrokenStreamError  # it was cut short while it was sent
        yield piece
        start += len(piece)


def _range_of(text: str | None, size: int) -> tuple[int, int] | None:
    """Begin and end of what is wanted (RFC 9110, section 14); None when there is no such range.

    What is not understood means all.
    """
    found = _RANGE.fullmatch(text.strip()) if text else None
    if found is None or found.groups() == (None, None):
        return 0, size
    first, last = found.groups()
    if first is None:
        return (max(0, size - int(last)), size) if int(last) and size else None
    start = int(first)
    end = min(size, int(last) + 1) if last is not None else size
    return (start, end) if start < min(end, size) else None


def _disposition(path: str) -> str:
    name = path.rpartition("/")[2].encode("utf-8", "surrogateescape")
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"
