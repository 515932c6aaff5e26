"""Trace, keep-alive and final state on their way: conformance cases 37 to 68."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.forges.gitlab.client import RunnerClient
from smidr_ci.forges.gitlab.parsing import parse_job
from smidr_ci.forges.gitlab.reasons import supported_reason
from smidr_ci.forges.gitlab.sender import MAX_PATCH, FinalState, Sender
from smidr_ci.forges.gitlab.stops import JobStops, Stop
from smidr_ci.forges.gitlab.trace import OUTPUT, Trace
from smidr_ci.forges.gitlab.transport import Limits, Transport
from tests.fakes.clock import FakeClock
from tests.fakes.gitlab.server import FakeJob, Fault, GitLabServer, serve
from tests.fakes.gitlab.site import payload

MEBIBYTE = 1024 * 1024


class Line:
    """One job's trace and sender, with a clock that moves when something waits."""

    def __init__(self, directory: Path, server: GitLabServer) -> None:
        self.server = server
        self.clock = FakeClock()
        self.pauses: list[float] = []
        self.at_pause: Callable[[float], bool] = lambda _seconds: False
        self.job: FakeJob = server.add_job(payload())
        server.change(self.job, state="running")
        self.trace = Trace(directory, clock=self.clock, has_timestamps=False)
        self.stops = JobStops()
        self.cancels: list[str] = []
        self.sender = self.new_sender()

    def new_sender(self, **changes: Any) -> Sender:
        transport = Transport(
            self.server.url, clock=self.clock, pause=self.pause, limits=Limits(headers_s=5)
        )
        options: dict[str, Any] = {
            "clock": self.clock,
            "stops": self.stops,
            "on_cancel": self.cancels.append,
            "pause": self.pause,
        }
        return Sender(
            RunnerClient(transport),
            parse_job(self.job.payload),
            self.trace,
            **{**options, **changes},
        )

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        return self.at_pause(seconds)

    def write(self, data: bytes) -> None:
        self.trace.write(OUTPUT, data)

    def finish(self, state: str = "success", *, attempts: int | None = None, **how: Any) -> bool:
        self.trace.end_output()
        until = self.clock.monotonic() + 7500
        return self.sender.finish(FinalState(state, **how), until_s=until, attempts=attempts)

    @property
    def patches(self) -> list[tuple[int, int]]:
        return [(item.start, len(item.body)) for item in self.server.asked("patch")]

    @property
    def is_complete(self) -> bool:
        return bytes(self.job.stored) == self.trace.path.read_bytes()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with serve() as server:
        line = Line(tmp_path, server)
        yield line
        line.trace.close()


def test_37_without_news_nothing_is_sent(line: Line) -> None:
    line.sender.tick()
    assert line.server.requests == []


def test_38_a_long_trace_goes_in_pieces_of_a_mebibyte_at_most(line: Line) -> None:
    line.write(os.urandom(1_250_000).hex().encode())
    assert line.finish()
    sizes = [size for _, size in line.patches]
    assert max(sizes) <= MAX_PATCH == MEBIBYTE
    starts = [start for start, _ in line.patches]
    assert starts == [sum(sizes[:number]) for number in range(len(sizes))]
    assert line.is_complete
    assert line.job.checksum_matches


def test_all_that_waits_goes_out_in_one_round(line: Line) -> None:
    line.write(b"x" * 5 * MEBIBYTE)
    line.sender.tick()
    assert line.is_complete


def test_39_a_range_that_does_not_fit_moves_to_the_servers_offset(line: Line) -> None:
    line.job.stored += b"one\n"
    line.write(b"one\ntwo\n")
    line.sender.tick()
    assert line.patches == [(0, 8), (4, 4)]
    assert line.is_complete


def test_40_without_a_range_header_the_trace_begins_anew(line: Line) -> None:
    line.write(b"one\n")
    line.sender.tick()
    line.write(b"two\n")
    line.server.faults.append(Fault("patch", 416))
    line.sender.tick()
    assert line.patches == [(0, 4), (4, 4), (0, 8), (4, 4)]
    assert line.job.trace == "one\ntwo\n"


@pytest.mark.parametrize("is_cut", [True, False])
def test_41_what_the_server_stored_without_our_hearing_of_it_is_not_doubled(
    line: Line, is_cut: bool
) -> None:
    line.write(b"one\n")
    fault = Fault("patch", 500, is_after=True, is_cut=is_cut)
    line.server.faults.append(fault)
    line.sender.tick()
    line.sender.tick()
    assert line.job.trace == "one\n"
    line.write(b"two\n")
    assert line.finish()
    assert line.job.trace == "one\ntwo\n"


def test_41_more_output_since_a_lost_answer_is_sent_from_where_the_server_is(line: Line) -> None:
    line.write(b"one\n")
    line.server.faults.append(Fault("patch", is_after=True, is_cut=True))
    line.sender.tick()
    line.write(b"two\n")
    line.sender.tick()
    assert line.patches == [(0, 4), (0, 8), (4, 4)]
    assert line.job.trace == "one\ntwo\n"


def test_42_a_trace_that_another_request_holds_is_tried_at_the_next_round(line: Line) -> None:
    line.write(b"one\n")
    line.server.faults.append(Fault("patch", 409))
    line.sender.tick()
    assert line.job.trace == ""
    line.sender.tick()
    assert line.job.trace == "one\n"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {}),
        (403, {"Job-Status": "success"}),
        (202, {"Job-Status": "canceled"}),
        (202, {"Job-Status": "failed"}),
        (500, {"Job-Status": "canceled"}),
    ],
)
def test_43_44_a_job_that_is_not_ours_any_more_is_aborted(
    line: Line, status: int, headers: dict[str, str]
) -> None:
    line.write(b"one\n")
    line.server.faults.append(Fault("patch", status, headers, count=9))
    line.sender.run()
    assert line.stops.reason is Stop.ABORTED
    assert line.stops.job.is_cancelled
    assert line.cancels == []


def test_45_a_cancel_is_told_once_and_the_trace_goes_on(line: Line) -> None:
    line.server.change(line.job, state="canceling")
    for number in range(3):
        line.write(b"line %d\n" % number)
        line.sender.tick()
    assert line.cancels == ["the job was canceled in GitLab"]
    assert line.is_complete
    assert line.finish("failed", failure_reason="unknown_failure")
    assert line.job.state == "canceled"


@pytest.mark.parametrize(
    ("told", "expected"),
    [(10, 10), (0, 3), (-1, 3), ("soon", 3), (100_000, 900), ("9" * 5000, 3)],
)
def test_46_the_servers_interval_is_kept_within_reason(
    line: Line, told: int | str, expected: float
) -> None:
    line.write(b"one\n")
    line.server.faults.append(
        Fault("patch", 202, {"X-GitLab-Trace-Update-Interval": ascii(told).strip("'")})
    )
    line.at_pause = lambda _seconds: len(line.pauses) == 3
    line.sender.run()
    assert line.pauses == [3, expected, expected]


def test_47_a_silent_job_shows_that_it_lives_and_a_talking_one_need_not(line: Line) -> None:
    line.at_pause = lambda _seconds: len(line.pauses) > 25
    line.write(b"begin\n")
    line.sender.run()
    updates = [item.json for item in line.server.asked("update")]
    assert [item["state"] for item in updates] == ["running"] * 2
    assert updates[0]["output"] == {
        "checksum": f"crc32:{zlib.crc32(b'begin' + bytes([10])):08x}",
        "bytesize": 6,
    }
    line.server.requests.clear()
    line.pauses.clear()

    def talk(_seconds: float) -> bool:
        line.write(b"more\n")
        return len(line.pauses) > 25

    line.at_pause = talk
    line.sender.run()
    assert line.server.asked("update") == []


def test_48_a_server_that_answers_404_is_waited_for_ten_minutes(line: Line) -> None:
    line.write(b"one\n")
    line.server.faults.append(Fault("patch", 404, count=10_000))
    line.at_pause = lambda _seconds: len(line.pauses) > 150
    line.sender.run()
    assert not line.sender.was_aborted
    line.clock.advance(400)
    line.at_pause = lambda _seconds: len(line.pauses) > 160
    line.sender.run()
    assert line.sender.was_aborted


def test_49_a_server_that_is_down_for_five_minutes_gets_all_in_the_end(line: Line) -> None:
    begun = line.clock.monotonic()

    def go_on(_seconds: float) -> bool:
        elapsed = line.clock.monotonic() - begun
        line.server.is_down = 60 < elapsed < 360
        line.write(b"at %d\n" % elapsed)
        return elapsed > 420

    line.at_pause = go_on
    line.sender.run()
    assert not line.sender.was_aborted
    line.at_pause = lambda _seconds: False
    assert line.finish()
    assert line.is_complete
    assert line.job.state == "success"
    assert line.job.checksum_matches


@pytest.mark.parametrize("seed", range(5))
def test_49_whatever_the_server_answers_meanwhile_the_trace_arrives_once(
    line: Line, seed: int
) -> None:
    faults = [
        Fault("patch", 500, count=seed + 1),
        Fault("patch", 502, is_after=True),
        Fault("patch", is_after=True, is_cut=True, count=2),
        Fault("patch", 429, {"Retry-After": "60"}, count=3),
        Fault("patch", is_cut=True),
        Fault("final", 503, count=7),
        Fault("final", is_cut=True, count=2),
    ]
    line.server.faults += faults[seed:] + faults[:seed]
    for number in range(40):
        line.write(b"line %d\n" % number * (seed * 500 + 1))
        line.sender.tick()
    assert line.finish()
    assert line.is_complete
    assert line.job.finals == 1


def test_a_slow_line_gets_smaller_pieces(line: Line) -> None:
    patch = line.sender._client.patch_trace

    class Slow(RunnerClient):
        def patch_trace(self, *args: Any, **options: Any) -> Any:
            line.clock.advance(len(args[2]) / 1024)
            return patch(*args, **options)

    line.sender._client = Slow(line.sender._client.transport)
    line.write(b"x" * 400_000)
    assert line.finish()
    assert line.is_complete
    assert line.patches[-2][1] == 16 * 1024


def test_58_debug_traces_are_told_in_the_first_patch(line: Line) -> None:
    line.sender = line.new_sender(is_debug=True)
    line.write(b"one\n")
    line.sender.tick()
    assert line.server.asked("patch")[0].query == {"debug_trace": "true"}
    assert line.job.is_debug


def test_59_a_trace_over_the_servers_limit_aborts_and_nothing_crashes(line: Line) -> None:
    line.server.state.trace_limit_mb = 1
    line.write(b"x" * 3 * MEBIBYTE)
    line.sender.tick()
    assert line.sender.was_aborted
    assert line.job.failure_reason == "trace_size_exceeded"
    assert line.finish("failed")


def test_60_the_last_piece_comes_before_the_final_state(line: Line) -> None:
    line.write(b"one\n")
    assert line.finish()
    assert [item.method for item in line.server.requests] == ["PATCH", "PUT"]


def test_62_a_state_that_is_only_accepted_is_sent_again(line: Line) -> None:
    line.job.accepted_left = 2
    assert line.finish()
    assert len(line.server.asked("final")) == 3
    assert line.pauses == [1, 1]
    assert line.job.state == "success"


def test_63_a_trace_that_the_server_lost_is_sent_as_a_whole(line: Line) -> None:
    line.write(b"one\ntwo\n")
    line.sender.tick()
    line.job.stored.clear()
    line.server.faults.append(Fault("final", 412))
    assert line.finish()
    assert line.patches == [(0, 8), (0, 8)]
    assert line.job.checksum_matches


def test_64_a_state_that_is_not_taken_is_tried_with_growing_pauses(line: Line) -> None:
    line.server.faults.append(Fault("final", 501, count=1000))
    assert not line.finish(attempts=10)
    assert line.pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    line.server.faults.clear()
    assert line.finish()


def test_64_it_is_tried_as_long_as_the_jobs_token_is_valid(line: Line) -> None:
    line.server.faults.append(Fault("final", 501, count=1000))
    assert not line.finish()
    assert 7400 < sum(line.pauses) <= 7500


@pytest.mark.parametrize("status", [403, 404])
def test_65_a_state_that_is_refused_is_not_tried_again(line: Line, status: int) -> None:
    line.server.faults.append(Fault("final", status))
    assert line.finish()
    assert len(line.server.requests) == 1


def test_66_a_wrong_checksum_does_not_hold_up_the_result(line: Line) -> None:
    line.write(b"one\n")
    line.sender.tick()
    line.job.stored[0:1] = b"X"
    assert line.finish()
    assert line.job.state == "success"
    assert line.job.checksum_matches is False


def test_68_success_has_no_exit_code(line: Line) -> None:
    assert line.finish()
    assert "exit_code" not in line.server.asked("final")[0].json
    assert "failure_reason" not in line.server.asked("final")[0].json


def test_an_exit_code_is_kept_within_what_the_server_takes(line: Line) -> None:
    assert line.finish("failed", failure_reason="script_failure", exit_code=99_999)
    assert line.job.exit_code == 32767


@pytest.mark.parametrize(
    ("reason", "known", "sent"),
    [
        ("image_pull_failure", (), "runner_system_failure"),
        ("image_pull_failure", ("image_pull_failure",), "image_pull_failure"),
        ("runner_configuration_error", (), "script_failure"),
        ("runner_external_dependency_failure", (), "runner_system_failure"),
        ("runner_interrupted", (), "unknown_failure"),
        ("job_canceled", (), "unknown_failure"),
        ("", (), "script_failure"),
        ("job_execution_timeout", (), "job_execution_timeout"),
    ],
)
def test_67_a_reason_that_the_server_does_not_know_becomes_the_nearest(
    reason: str, known: tuple[str, ...], sent: str
) -> None:
    assert supported_reason(reason, known) == sent


def test_a_server_with_more_than_we_have_is_followed(line: Line) -> None:
    line.job.stored += b"from before the disk was lost\n"
    line.write(b"one\n")
    line.sender.tick()
    line.write(b"two\n")
    line.sender.tick()
    assert line.job.trace == "from before the disk was lost\ntwo\n"
