"""Who follows a build shares one watcher: of its log, and of its state.

A watcher is one task per followed build, alive while somebody follows. It looks at the log's size
(soon again while it grows, seldom when it is quiet, at once when the build changes) and wakes all
followers; each of those reads its own chunks by offset. A follower that stops reading holds one
chunk at most. For servers on an asyncio loop; all of it belongs to one loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, Generic, TypeVar

from smidr_ci.builds.logbook import CHUNK_BYTES, LogReader
from smidr_ci.builds.service import BuildView

__all__ = ["LogTails", "Subscribe", "ViewTails", "tail_start"]

Subscribe = Callable[[Callable[[], None]], Callable[[], None]]
"""`BuildService.subscribe` of one build: takes `wake`, returns what ends that. May block."""

_SHORTEST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_PAUSE_PER_FOLLOWER_S: Final = 0.0005
"""Waking 200 followers 50 times a second would cost more than what they read."""
_BETWEEN_ASKING_S: Final = 0.1
_VIEW_PAUSE_S: Final = 0.1
_VIEW_SAFETY_S: Final = 2.0
"""A build of another process changes without telling; look so often."""

_T = TypeVar("_T")
_Key = TypeVar("_Key")
_Kind = TypeVar("_Kind", bound="_Watcher")


class LogTails:
    """Growing logs, one watcher for all followers of each. `pool` is for calls that block."""

    def __init__(self, pool: Executor | None = None) -> None:
        self._pool = pool
        self._watchers: _Shared[Path, _LogWatcher] = _Shared()

    async def follow(
        self, path: Path, offset: int, is_over: Callable[[], bool], subscribe: Subscribe
    ) -> AsyncGenerator[tuple[int, bytes], None]:
        """Chunks with their offsets until the build is over and all is delivered.

        `is_over` and `subscribe` are those of the build and may block; what they raise ends the
        stream. An offset beyond the end, or a log that is truncated or replaced, means from 0.
        Wrap it in `contextlib.aclosing`.
        """

        def make() -> _LogWatcher:
            return _LogWatcher(path, is_over, subscribe, self._pool)

        async with self._watchers.joined(path, make) as watcher:
            generation = watcher.generation
            with LogReader(path) as reader:
                offset = 0 if offset > reader.size else offset
                while True:
                    pulse, is_last = watcher.pulse, watcher.is_over
                    watcher.raise_error()
                    if watcher.generation != generation:
                        reader.close()
                        generation, offset = watcher.generation, 0
                    chunk = watcher.recent_at(offset)
                    if chunk is None:
                        chunk = await _read(reader, offset, watcher.size - offset, self._pool)
                        watcher.remember(generation, offset, chunk)
                    if chunk:
                        yield offset, chunk
                        offset += len(chunk)
                    elif is_last:
                        return
                    else:
                        await pulse.wait()

    async def read(self, path: Path, offset: int) -> AsyncGenerator[tuple[int, bytes], None]:
        """Chunks from the offset to what is the log's end now. Wrap it in `aclosing` too."""
        with LogReader(path) as reader:
            end = reader.size
            while chunk := await _read(reader, offset, end - offset, self._pool):
                yield offset, chunk
                offset += len(chunk)


class ViewTails:
    """What can be seen of builds, looked up once for all who watch. `pool` is for blocking calls.

    Changes in quick succession are seen as one, at most ten views a second.
    """

    def __init__(self, pool: Executor | None = None) -> None:
        self._pool = pool
        self._watchers: _Shared[str, _ViewWatcher] = _Shared()

    async def watch(
        self, build_id: str, view: Callable[[], BuildView], subscribe: Subscribe
    ) -> AsyncGenerator[BuildView, None]:
        """The build now and after changes; the last view is of its final state.

        `build_id` is the whole id; `view` and `subscribe` are those of the build and may block.
        What they raise ends the stream. Views carry all notes, not only new ones. Wrap it in
        `contextlib.aclosing`.
        """

        def make() -> _ViewWatcher:
            return _ViewWatcher(view, subscribe, self._pool)

        async with self._watchers.joined(build_id, make) as watcher:
            seen: BuildView | None = None
            while True:
                pulse, is_last = watcher.pulse, watcher.is_over
                watcher.raise_error()
                if watcher.view is not None and watcher.view is not seen:
                    seen = watcher.view
                    yield seen
                elif is_last:
                    return
                else:
                    await pulse.wait()


def tail_start(path: Path, lines: int) -> int:
    """The offset where a log's last so many lines begin; reads 16 MiB at most. Blocks."""
    with LogReader(path) as reader:
        return reader.tail_start(lines)


class _Shared(Generic[_Key, _Kind]):
    """The watchers that have followers."""

    def __init__(self) -> None:
        self._watchers: dict[_Key, _Kind] = {}

    @contextlib.asynccontextmanager
    async def joined(self, key: _Key, make: Callable[[], _Kind]) -> AsyncIterator[_Kind]:
        """The key's watcher, running; it ends when its last follower goes."""
        watcher = self._watchers.get(key)
        if watcher is None or watcher.is_done:
            watcher = self._watchers[key] = make()
        watcher.followers += 1
        try:
            yield watcher
        finally:
            watcher.followers -= 1
            if watcher.followers == 0:
                if self._watchers.get(key) is watcher:
                    del self._watchers[key]
                await watcher.stop()


class _Watcher:
    """A task that looks, and a pulse that tells followers to look too.

    A follower takes `pulse` before it looks at the rest, so that no pulse is missed.
    """

    def __init__(self, subscribe: Subscribe, pool: Executor | None) -> None:
        self.followers = 0
        self.pulse = asyncio.Event()
        self.is_over = False
        self._error: Exception | None = None
        self._subscribe = subscribe
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def is_done(self) -> bool:
        """Whether it has stopped looking; a new follower needs a new one."""
        return self._task.done() or self.is_over or self._error is not None

    def raise_error(self) -> None:
        """Raise what ended the watcher before its time."""
        if self._error is not None:
            raise self._error

    async def stop(self) -> None:
        """End the task and the subscription."""
        if not self.is_done:  # else it is about to unsubscribe
            self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        subscribing = self._loop.run_in_executor(self._pool, self._subscribe, self._wake)
        try:
            await asyncio.shield(subscribing)
            await self._look()
        except Exception as error:  # noqa: BLE001 - followers raise it
            self._error = error
        finally:
            self._tell()
            await asyncio.wait([subscribing])
            if subscribing.exception() is None:
                await _blocking(self._pool, subscribing.result())

    async def _look(self) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _pause(self, shortest_s: float, longest_s: float) -> bool:
        """Wait for the build to change, but neither less nor more than so long; say whether."""
        await asyncio.sleep(shortest_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s - shortest_s):
                await self._changed.wait()
        is_changed = self._changed.is_set()
        self._changed.clear()
        return is_changed

    def _tell(self) -> None:
        self.pulse.set()
        self.pulse = asyncio.Event()


class _LogWatcher(_Watcher):
    def __init__(
        self,
        path: Path,
        is_over: Callable[[], bool],
        subscribe: Subscribe,
        pool: Executor | None,
    ) -> None:
        super().__init__(subscribe, pool)
        self.size = 0
        self.generation = 0
        """Counts how often the file was replaced or truncated."""
        self._path = path
        self._ask_is_over = is_over
        self._recent: tuple[int, bytes] | None = None

    def recent_at(self, offset: int) -> bytes | None:
        """What another follower has just read there: most of them are at the same place."""
        return self._recent[1] if self._recent and self._recent[0] == offset else None

    def remember(self, generation: int, offset: int, chunk: bytes) -> None:
        """Keep a chunk for those who come next."""
        if chunk and generation == self.generation:
            self._recent = (offset, chunk)

    async def _look(self) -> None:
        pause, is_asking, next_time = _SHORTEST_PAUSE_S, True, 0.0
        with LogReader(self._path) as reader:
            while True:
                has_ended = False
                if is_asking and self._loop.time() >= next_time:
                    has_ended = await _blocking(self._pool, self._ask_is_over)
                    is_asking, next_time = False, self._loop.time() + _BETWEEN_ASKING_S
                # What was written before the end is all there after it: look after asking.
                if self._has_grown(reader):
                    pause = _SHORTEST_PAUSE_S
                    self._tell()
                if has_ended:
                    self.is_over = True
                    return
                shortest = _SHORTEST_PAUSE_S + _PAUSE_PER_FOLLOWER_S * self.followers
                longest = _BETWEEN_ASKING_S if is_asking else pause
                is_asking |= await self._pause(shortest, max(shortest, longest))
                pause = min(pause * 1.5, _LONGEST_PAUSE_S)
                is_asking |= pause == _LONGEST_PAUSE_S

    def _has_grown(self, reader: LogReader) -> bool:
        size = reader.size
        if reader.was_replaced(self.size):
            reader.close()
            self.generation += 1
            self._recent = None
            self.size = reader.size
            return True
        has_grown, self.size = size > self.size, size
        return has_grown


class _ViewWatcher(_Watcher):
    def __init__(
        self, view: Callable[[], BuildView], subscribe: Subscribe, pool: Executor | None
    ) -> None:
        super().__init__(subscribe, pool)
        self.view: BuildView | None = None
        self._ask_view = view

    async def _look(self) -> None:
        while True:
            view = await _blocking(self._pool, self._ask_view)
            self.is_over = view.record.state.is_final
            if view != self.view:
                self.view = view
                self._tell()
            if self.is_over:
                return
            await self._pause(_VIEW_PAUSE_S, _VIEW_SAFETY_S)


async def _read(reader: LogReader, offset: int, max_bytes: int, pool: Executor | None) -> bytes:
    """At the loop's own speed when the page cache has it, else in a thread."""
    wanted = min(max_bytes, CHUNK_BYTES)
    chunk = reader.read_cached(offset, wanted) if wanted > 0 else b""
    if chunk is not None:
        return chunk
    handle = reader.handle()
    if handle is None:
        return b""

    def read() -> bytes:
        # A descriptor of its own: whoever waits may be cancelled, and the reader closed.
        try:
            return os.pread(handle, wanted, offset)
        finally:
            os.close(handle)

    return await _blocking(pool, read)


async def _blocking(pool: Executor | None, call: Callable[[], _T]) -> _T:
    # Shielded: a call that is queued when its follower goes must run, and close what it holds.
    return await asyncio.shield(asyncio.get_running_loop().run_in_executor(pool, call))
