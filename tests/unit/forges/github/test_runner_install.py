"""Which official runner a host uses, and how it comes here."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from smidr_ci.config.runners import RunnerSettings
from smidr_ci.forges.errors import ForgeError
from smidr_ci.forges.github.runners.archive import Archive, verify
from smidr_ci.forges.github.runners.install import Installs
from smidr_ci.forges.github.runners.ports import RunnerDownload
from tests.fakes.clock import FakeClock
from tests.fakes.github.runner_program import archive, write_archive

_NAMES = {"x86_64": "x64", "aarch64": "arm64", "armv7l": "arm"}
HERE = _NAMES.get(platform.machine(), platform.machine())


@dataclass
class Downloads:
    """A server of archives, and the list of them that GitHub would give."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    cut: int = 0
    """Bytes after which the next answer breaks off."""
    offers: list[RunnerDownload] = field(default_factory=list)

    def add(self, version: str, architecture: str = HERE, *, token: str = "") -> bytes:
        raw = archive(version)
        name = f"actions-runner-linux-{architecture}-{version}.tar.gz"
        self.files[f"/{name}"] = raw
        digest = hashlib.sha256(raw).hexdigest()
        url = f"{self.url}/{name}"
        self.offers.append(RunnerDownload("linux", architecture, url, name, digest, token))
        return raw


@pytest.fixture
def downloads() -> Iterator[Downloads]:
    made = Downloads()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers.get("Authorization", "")))
            raw = made.files.get(self.path)
            self.send_response(404 if raw is None else 200)
            self.send_header("Content-Length", str(len(raw or b"")))
            self.end_headers()
            self.wfile.write((raw or b"")[: made.cut or None])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


class Bench:
    def __init__(self, folder: Path, downloads: Downloads) -> None:
        self.clock = FakeClock()
        self.settings = RunnerSettings()
        self.folder = folder / "official-runners"
        self.problem: ForgeError | None = None
        self.downloads = downloads
        self.installs = self.again()

    def again(self) -> Installs:
        """That of the next process."""
        self.installs = Installs(lambda: self.settings, self.folder, self._offers, self.clock)
        return self.installs

    def _offers(self) -> list[RunnerDownload]:
        if self.problem is not None:
            raise self.problem
        return self.downloads.offers

    def current(self) -> Archive | None:
        return self.installs.current

    @property
    def kept(self) -> list[str]:
        return sorted(os.listdir(self.folder))


@pytest.fixture
def bench(tmp_path: Path, downloads: Downloads) -> Iterator[Bench]:
    made = Bench(tmp_path, downloads)
    yield made
    made.installs.close()


def test_the_newest_runner_for_this_machine_is_downloaded(bench: Bench) -> None:
    bench.downloads.add("2.99.9")
    raw = bench.downloads.add("2.336.0")
    bench.downloads.add("2.400.0", "riscv64")
    assert bench.current() is None
    bench.installs.refresh()
    found = bench.current()
    assert found is not None
    assert (found.version, found.path.read_bytes()) == ("2.336.0", raw)
    assert bench.installs.problem == ""


def test_a_runner_that_is_here_is_not_downloaded_again(bench: Bench) -> None:
    bench.downloads.add("2.336.0", token="for-a-moment")
    bench.installs.refresh()
    bench.installs.refresh()
    bench.installs.close()
    bench.again().refresh()
    assert bench.current() is not None
    [(_, authorization)] = bench.downloads.asked
    assert authorization == "Bearer for-a-moment"


def test_an_archive_that_was_changed_is_downloaded_again(bench: Bench) -> None:
    raw = bench.downloads.add("2.336.0")
    bench.installs.refresh()
    found = bench.current()
    assert found is not None
    found.path.write_bytes(raw + b"poison")
    bench.installs.close()
    bench.again().refresh()
    found = bench.current()
    assert found is not None
    verify(found)


def test_a_download_with_another_sum_is_not_kept(bench: Bench) -> None:
    bench.downloads.add("2.336.0")
    for path in bench.downloads.files:
        bench.downloads.files[path] += b"\0"
    bench.installs.refresh()
    assert bench.current() is None
    assert "SHA-256" in bench.installs.problem
    assert bench.kept == []


def test_a_download_that_breaks_off_is_tried_again(bench: Bench) -> None:
    bench.downloads.add("2.336.0")
    bench.downloads.cut = 100
    bench.installs.refresh()
    assert bench.current() is None
    assert (bench.installs.problem, bench.kept) != ("", [])
    bench.downloads.cut = 0
    bench.installs.refresh()
    assert bench.current() is not None


def test_a_runner_without_a_sum_or_without_tls_is_not_taken(bench: Bench) -> None:
    bench.downloads.offers = [
        RunnerDownload("linux", HERE, "https://example.com/a", "a-2.1.0.tar.gz")
    ]
    bench.installs.refresh()
    assert "no SHA-256" in bench.installs.problem
    bench.downloads.offers = [
        RunnerDownload("linux", HERE, "http://example.com/a", "a-2.1.0.tar.gz", "0" * 64)
    ]
    bench.installs.refresh()
    assert "without TLS" in bench.installs.problem
    assert bench.current() is None


def test_without_github_the_runner_that_is_here_goes_on(bench: Bench) -> None:
    bench.downloads.add("2.336.0")
    bench.installs.refresh()
    bench.problem = ForgeError("no answer from GitHub")
    bench.installs.refresh()
    assert bench.current() is not None
    assert "no answer from GitHub" in bench.installs.problem


def test_a_refused_version_is_not_used_until_there_is_a_newer_one(bench: Bench) -> None:
    bench.downloads.add("2.336.0")
    bench.installs.refresh()
    old = bench.current()
    assert old is not None
    bench.installs.refuse(old.sha256, old.version)
    bench.installs.refresh()
    assert bench.current() is None
    assert "version 2.336.0 any more" in bench.installs.problem
    bench.downloads.add("2.337.1")
    bench.installs.refresh()
    newer = bench.current()
    assert newer is not None
    assert newer.version == "2.337.1"


def test_old_versions_go_after_a_week(bench: Bench) -> None:
    bench.downloads.add("2.336.0")
    bench.installs.refresh()
    bench.downloads.add("2.337.0")
    bench.clock.advance(6 * 86_400)
    bench.installs.refresh()
    assert len(bench.kept) == 2
    bench.clock.advance(2 * 86_400)
    bench.installs.refresh()
    [left] = bench.kept
    assert left.startswith("2.337.0-")


def test_the_operators_archive_wins_and_must_be_what_it_is_said_to_be(
    bench: Bench, tmp_path: Path
) -> None:
    bench.downloads.add("2.400.0")
    path = tmp_path / "actions-runner-linux-x64-2.330.0.tar.gz"
    sha256 = write_archive(path)
    link = tmp_path / "current.tar.gz"
    link.symlink_to(path)
    bench.settings = RunnerSettings(tarball=link, sha256="f" * 64)
    bench.installs.refresh()
    assert bench.current() is None
    assert "f" * 64 in bench.installs.problem
    bench.settings = RunnerSettings(tarball=link, sha256=sha256)
    bench.installs.refresh()
    newer = bench.current()
    assert newer is not None
    assert newer.version == "2.330.0"
    assert bench.downloads.asked == []
