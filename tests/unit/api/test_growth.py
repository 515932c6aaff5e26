"""Followers of one build share a watcher, and each gets everything."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest

from smidr_ci.api.growth import LogTails, ViewTails, tail_start
from smidr_ci.builds.logbook import LogReader
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.service import BuildView
from smidr_ci.errors import HostError
from tests.fakes.build_service import a_record

TIMEOUT_S = 30


class Build:
    """A build's log and state, and who is subscribed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_ended = False
        self.times_asked = 0
        self.times_subscribed = 0
        self.wakers: list[Callable[[], None]] = []
        self.failure: Exception | None = None

    def write(self, text: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(text)

    def end(self) -> None:
        self.is_ended = True
        for wake in list(self.wakers):
            wake()

    def is_over(self) -> bool:
        self.times_asked += 1
        if self.failure is not None:
            raise self.failure
        return self.is_ended

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.times_subscribed += 1
        self.wakers.append(wake)
        return lambda: self.wakers.remove(wake)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path / "console.log")


async def collected(tails: LogTails, build: Build, offset: int = 0) -> list[tuple[int, bytes]]:
    return [item async for item in tails.follow(build.path, offset, build.is_over, build.subscribe)]


def joined(chunks: list[tuple[int, bytes]]) -> bytes:
    for (start, data), (following, _) in pairwise(chunks):
        assert start + len(data) == following
    return b"".join(data for _, data in chunks)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)


def run(work: Callable[[], object]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await work()  # type: ignore[misc] # a coroutine function

    asyncio.run(limited())


def test_all_followers_get_all_bytes_from_one_watcher(build: Build) -> None:
    async def work() -> None:
        tails = LogTails()
        followers = [asyncio.create_task(collected(tails, build)) for _ in range(50)]
        await until(lambda: bool(build.wakers))
        for number in range(40):
            build.write(b"%d\n" % number * 5000)
            await asyncio.sleep(0)
        build.end()
        texts = {joined(chunks) for chunks in await asyncio.gather(*followers)}
        assert texts == {build.path.read_bytes()}
        assert build.times_subscribed == 1
        assert build.wakers == []

    run(work)


def test_a_log_that_is_over_ends_without_waiting(build: Build) -> None:
    async def work() -> None:
        build.write(b"all\n")
        build.end()
        assert await collected(LogTails(), build) == [(0, b"all\n")]
        assert await collected(LogTails(), build, offset=2) == [(2, b"l\n")]
        assert build.wakers == []

    run(work)


def test_what_is_written_just_before_the_end_is_delivered(build: Build) -> None:
    async def work() -> None:
        following = asyncio.create_task(collected(LogTails(), build))
        await until(lambda: bool(build.wakers))
        build.write(b"last words\n")
        build.end()
        assert joined(await following) == b"last words\n"

    run(work)


def test_a_build_of_another_process_ends_too_though_nobody_tells(build: Build) -> None:
    async def work() -> None:
        following = asyncio.create_task(collected(LogTails(), build))
        await until(lambda: bool(build.wakers))
        build.write(b"text\n")
        build.is_ended = True
        assert joined(await following) == b"text\n"

    run(work)


def test_a_log_that_appears_late_is_followed_from_its_beginning(build: Build) -> None:
    async def work() -> None:
        following = asyncio.create_task(collected(LogTails(), build))
        await until(lambda: build.times_asked > 0)
        build.write(b"here\n")
        build.end()
        assert joined(await following) == b"here\n"

    run(work)


def test_a_log_that_is_replaced_is_delivered_again(build: Build) -> None:
    async def work() -> None:
        build.write(b"first attempt\n")
        tails = LogTails()
        follower = tails.follow(build.path, 0, build.is_over, build.subscribe)
        async with aclosing(follower):
            assert await anext(follower) == (0, b"first attempt\n")
            os.replace(_other(build.path, b"second\n"), build.path)
            assert await anext(follower) == (0, b"second\n")
            build.end()
            assert [item async for item in follower] == []

    run(work)


def test_an_offset_beyond_the_end_means_the_beginning(build: Build) -> None:
    async def work() -> None:
        build.write(b"short\n")
        build.end()
        assert await collected(LogTails(), build, offset=4711) == [(0, b"short\n")]

    run(work)


def test_chunks_have_256_kib_at_most(build: Build) -> None:
    async def work() -> None:
        build.write(os.urandom(1_000_000))
        build.end()
        chunks = await collected(LogTails(), build)
        assert max(len(data) for _, data in chunks) <= 256 * 1024
        assert joined(chunks) == build.path.read_bytes()

    run(work)


def test_a_follower_that_stops_reading_holds_nobody_up(build: Build) -> None:
    async def work() -> None:
        tails = LogTails()
        slow = tails.follow(build.path, 0, build.is_over, build.subscribe)
        async with aclosing(slow):
            build.write(b"x" * 1000)
            assert await anext(slow) == (0, b"x" * 1000)
            others = asyncio.create_task(collected(tails, build))
            build.write(b"y" * 1_000_000)
            build.end()
            assert len(joined(await others)) == 1_001_000
            rest = [item async for item in slow]
            assert joined(rest) == b"y" * 1_000_000

    run(work)


def test_the_watcher_goes_with_the_last_follower(build: Build) -> None:
    async def work() -> None:
        tails = LogTails()
        for _ in range(3):
            async with aclosing(
                tails.follow(build.path, 0, build.is_over, build.subscribe)
            ) as follower:
                waiting = asyncio.ensure_future(anext(follower))
                await until(lambda: bool(build.wakers))
                waiting.cancel()
                await asyncio.wait([waiting])
            assert build.wakers == []
        assert build.times_subscribed == 3

    run(work)


def test_what_goes_wrong_reaches_every_follower(build: Build) -> None:
    async def work() -> None:
        tails = LogTails()
        build.failure = HostError("the database is gone")
        followers = [asyncio.create_task(collected(tails, build)) for _ in range(3)]
        results = await asyncio.gather(*followers, return_exceptions=True)
        assert results == [build.failure] * 3
        assert build.wakers == []

    run(work)


def test_an_idle_log_is_looked_at_seldom(build: Build) -> None:
    async def work() -> None:
        following = asyncio.create_task(collected(LogTails(), build))
        await until(lambda: build.times_asked >= 3)
        began, asked = asyncio.get_running_loop().time(), build.times_asked
        await until(lambda: build.times_asked >= asked + 3)
        assert asyncio.get_running_loop().time() - began > 0.9
        build.end()
        await following

    run(work)


def test_reading_ends_where_the_log_ends_now(build: Build) -> None:
    async def work() -> None:
        build.write(b"a" * 600_000)
        reading = LogTails().read(build.path, 1)
        async with aclosing(reading):
            first = await anext(reading)
            build.write(b"later")
            rest = [item async for item in reading]
        assert joined([first, *rest]) == b"a" * 599_999

    run(work)


def test_a_log_that_the_disk_must_bring_is_read_by_a_thread(build: Build) -> None:
    text = os.urandom(600_000)
    probe = build.path.with_suffix(".probe")
    for path in (probe, build.path):
        _write_to_disk_only(path, text)
    with LogReader(probe) as reader:
        if reader.read_cached(0) is not None:
            pytest.skip("this file system keeps everything in memory")

    async def work() -> None:
        with ThreadPoolExecutor(1, initializer=started.append, initargs=(True,)) as pool:
            chunks = [item async for item in LogTails(pool).read(build.path, 0)]
            assert joined(chunks) == text

    started: list[bool] = []
    run(work)
    assert started == [True]


@pytest.mark.parametrize(("lines", "start"), [(0, 12), (1, 8), (2, 4), (9, 0)])
def test_the_tail_starts_so_many_lines_before_the_end(build: Build, lines: int, start: int) -> None:
    build.write(b"one\ntwo\nend\n")
    assert tail_start(build.path, lines) == start


def test_watchers_of_a_build_see_its_end_and_share_the_looks(build: Build) -> None:
    async def work() -> None:
        looks = 0

        def view() -> BuildView:
            nonlocal looks
            looks += 1
            state = BuildState.COMPLETED if build.is_ended else BuildState.BUILDING
            return BuildView(looks, a_record(state=state))

        tails = ViewTails()

        async def watch() -> list[BuildState]:
            views = tails.watch("acme-12345678", view, build.subscribe)
            return [item.record.state async for item in views]

        watching = [asyncio.create_task(watch()) for _ in range(20)]
        await until(lambda: looks >= 1)
        build.end()
        for states in await asyncio.gather(*watching):
            assert states[-1] is BuildState.COMPLETED
        assert looks <= 4
        assert build.times_subscribed == 1
        assert build.wakers == []

    run(work)


def test_changes_in_quick_succession_are_seen_as_one(build: Build) -> None:
    async def work() -> None:
        version = 0

        def view() -> BuildView:
            state = BuildState.COMPLETED if build.is_ended else BuildState.BUILDING
            return BuildView(version, a_record(state=state))

        views = ViewTails().watch("acme-12345678", view, build.subscribe)
        async with aclosing(views):
            assert (await anext(views)).version == 0
            for version in range(1, 101):  # noqa: B007 - `view` reads it
                for wake in list(build.wakers):
                    wake()
            assert (await anext(views)).version == 100
            build.end()
            assert [item.record.state async for item in views] == [BuildState.COMPLETED]

    run(work)


def _other(path: Path, text: bytes) -> Path:
    other = path.with_suffix(".new")
    other.write_bytes(text)
    return other


def _write_to_disk_only(path: Path, text: bytes) -> None:
    with path.open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
