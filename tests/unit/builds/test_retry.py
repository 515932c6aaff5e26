"""Which failures start a build again, and what is done before."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidr_ci.builds.model import BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.retry import Retries
from smidr_ci.diagnosis.model import Category, Finding, Severity
from smidr_ci.errors import FailureKind

FAILED = Outcome(BuildState.FAILED, 1, FailureKind.BUILD, "")
OBJECT = "universal/ab/cd/sstate:zlib:x:1.3:r0:x:10:abcd_populate_sysroot.tar.zst"


def error(category: Category, message: str = "m", *, retryable: bool = False) -> Finding:
    return Finding(category, Severity.ERROR, message, recipe="zlib", retryable=retryable)


def damaged(name: str = OBJECT) -> Finding:
    return error(Category.SSTATE, f"tar: /smidr/sstate/{name}: Unexpected EOF in archive")


@pytest.fixture
def sstate(tmp_path: Path) -> Path:
    path = tmp_path / "sstate" / OBJECT
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    path.with_name(f"{path.name}.siginfo").write_bytes(b"info")
    return tmp_path / "sstate"


def test_a_network_failure_is_tried_twice_more_with_growing_pauses(sstate: Path) -> None:
    retries = Retries(sstate)
    fetch = error(Category.FETCH, retryable=True)
    pauses = []
    while retries.reason_to_retry(FAILED, [fetch]):
        pauses.append(retries.delay_s)
    assert pauses == sorted(pauses)
    assert len(pauses) == 2


@pytest.mark.parametrize(
    "findings",
    [
        [],
        [error(Category.COMPILE)],
        [error(Category.FETCH)],
        [error(Category.FETCH, retryable=True), error(Category.COMPILE)],
    ],
    ids=["nothing known", "compile error", "fetch that would fail again", "fetch and compile"],
)
def test_what_would_fail_again_is_not_tried_again(sstate: Path, findings: list[Finding]) -> None:
    assert Retries(sstate).reason_to_retry(FAILED, findings) is None


def test_a_cancelled_build_is_not_tried_again(sstate: Path) -> None:
    stopped = Outcome(BuildState.CANCELLED, 1)
    fetch = error(Category.FETCH, retryable=True)
    assert Retries(sstate).reason_to_retry(stopped, [fetch]) is None


def test_a_damaged_object_is_set_aside_with_its_siginfo_and_only_once(sstate: Path) -> None:
    retries = Retries(sstate)
    assert retries.reason_to_retry(FAILED, [damaged()])
    name = Path(OBJECT).name
    kept = sorted(path.name for path in (sstate / "damaged").iterdir())
    assert kept == [name, f"{name}.siginfo"]
    assert (sstate / "damaged" / name).read_bytes() == b"half"
    assert not (sstate / OBJECT).exists()
    assert retries.reason_to_retry(FAILED, [damaged()]) is None


def test_an_object_that_is_not_there_is_no_reason(sstate: Path) -> None:
    assert Retries(sstate).reason_to_retry(FAILED, [damaged("aa/bb/sstate:no.tgz")]) is None


def test_a_log_cannot_name_a_file_outside_of_sstate(sstate: Path) -> None:
    outside = sstate.parent / "precious.tgz"
    outside.write_bytes(b"x")
    assert Retries(sstate).reason_to_retry(FAILED, [damaged("../precious.tgz")]) is None
    assert outside.exists()


@pytest.mark.parametrize("link", ["damaged", "universal"])
def test_a_link_that_a_build_left_in_sstate_is_not_followed(sstate: Path, link: str) -> None:
    elsewhere = sstate.parent / "elsewhere"
    if link == "universal":
        (sstate / link).rename(elsewhere)
    else:
        elsewhere.mkdir()
    (sstate / link).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    assert Retries(sstate).reason_to_retry(FAILED, [damaged()]) is None
    assert sorted(elsewhere.rglob("*")) == before
