"""The probe of a cache directory waits for a slow file system, but not for ever."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from smidr_ci.caches.probe import probe_as
from smidr_ci.containers.runtime import User

USER = User(os.geteuid(), os.getegid())


def test_a_file_system_that_is_slow_is_waited_for_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert probe_as(tmp_path, USER, slow_s=0.0) == ""
    (message,) = (record.getMessage() for record in caplog.records)
    assert str(tmp_path) in message
    assert [path.name for path in tmp_path.iterdir()] == ["CACHEDIR.TAG"]


def test_one_that_does_not_answer_is_given_up_and_no_process_stays(tmp_path: Path) -> None:
    reason = probe_as(tmp_path, USER, limit_s=0.0)
    assert reason == "the file system did not answer in 0 s"
    for thread in threading.enumerate():
        if thread.name == "probe-end":
            thread.join(timeout=60.0)
            assert not thread.is_alive()


def test_a_file_system_that_answers_is_not_talked_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert probe_as(tmp_path, USER, slow_s=200.0) == ""
    assert caplog.records == []
