"""The doctor tries the operator's stores as agents and readers use them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from smidr_ci.config.stores import StoreSettings
from smidr_ci.doctor.model import CheckResult, Status
from smidr_ci.doctor.stores import check_store
from smidr_ci.stores.directory import DirectoryStore
from smidr_ci.stores.probe import probe_store
from smidr_ci.stores.s3_client import make_client
from tests.fakes.fault_proxy import Fault, proxy_to
from tests.fakes.store_servers import KEY_ID, PASSWORD, rclone_server, s3_login


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        pass


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def check(settings: StoreSettings) -> CheckResult:
    (result,) = check_store("artifacts.external_store", settings)
    return result


def objects(folder: Path) -> list[str]:
    return [item.key for item in DirectoryStore(folder).list()]


def test_a_good_directory_with_its_web_server_is_fine(tmp_path: Path) -> None:
    with web_server(tmp_path) as url:
        result = check(StoreSettings(url=f"file://{tmp_path}", public_url=url))
    assert (result.status, result.remedy) == (Status.OK, "")
    assert "its links work" in result.detail
    assert objects(tmp_path) == []


def test_a_directory_without_links_is_fine_and_says_so(tmp_path: Path) -> None:
    result = check(StoreSettings(url=f"file://{tmp_path}"))
    assert result.status is Status.OK
    assert "readers get no link" in result.detail


def test_links_that_lead_elsewhere_are_told(tmp_path: Path) -> None:
    other = tmp_path / "other"
    stored = tmp_path / "stored"
    other.mkdir()
    stored.mkdir()
    with web_server(other) as url:
        result = check(StoreSettings(url=f"file://{stored}", public_url=url))
    assert result.status is Status.WARN
    assert result.name == "links of artifacts.external_store"
    assert "answers 404 to a reader" in result.detail
    assert "public_url" in result.remedy
    assert objects(stored) == []


def test_links_to_nobody_are_told(tmp_path: Path) -> None:
    settings = StoreSettings(url=f"file://{tmp_path}", public_url="http://127.0.0.1:1/x")
    assert "nobody answers at http://127.0.0.1:1/x" in check(settings).detail


def test_a_missing_directory_is_told_with_a_remedy(tmp_path: Path) -> None:
    result = check(StoreSettings(url=f"file://{tmp_path}/unmounted"))
    assert result.status is Status.WARN
    assert "no such directory" in result.detail
    assert result.remedy


def test_a_bucket_is_tried_with_its_signed_link(tmp_path: Path) -> None:
    login = s3_login(tmp_path)
    with rclone_server("s3", tmp_path / "root") as url:
        settings = StoreSettings(url="s3://bucket/ci", endpoint=url, credentials_file=login)
        assert "Make the bucket" in check(settings).remedy
        with closing(make_client(settings)) as client:
            client.create_bucket(Bucket="bucket")
        result = check(settings)
        assert (result.status, result.remedy) == (Status.OK, "")
        assert "its links work" in result.detail
        wrong = s3_login(tmp_path, "wrong-secret")
        refused = check(settings.model_copy(update={"credentials_file": wrong}))
        assert "SignatureDoesNotMatch" in refused.detail
        assert "wrong-secret" not in f"{refused.detail}{refused.remedy}"


@pytest.mark.parametrize("pattern", ["GET .*", "DELETE .*", "PUT .*", "HEAD .*"])
def test_what_the_login_may_not_do_is_told(tmp_path: Path, pattern: str) -> None:
    login = tmp_path / "login"
    login.write_text(f"{KEY_ID}:{PASSWORD}\n")
    login.chmod(0o600)
    with rclone_server("webdav", tmp_path / "root") as url, proxy_to(url) as proxy:
        proxy.faults.append(Fault(pattern, status=403, count=99))
        result = check(StoreSettings(url=f"{proxy.url}/ci", credentials_file=login))
    assert result.status is Status.WARN
    assert "with 403" in result.detail
    assert "may not do this" in result.remedy


def test_a_reader_of_a_server_with_login_is_told_of(tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text(f"{KEY_ID}:{PASSWORD}\n")
    login.chmod(0o600)
    with rclone_server("webdav", tmp_path / "root") as url:
        result = check(StoreSettings(url=f"{url}/ci", credentials_file=login))
    assert result.status is Status.WARN
    assert "answers 401 to a reader without login" in result.detail


def test_the_probe_leaves_nothing_when_a_look_fails(tmp_path: Path) -> None:
    def look(_url: str, _raw: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        probe_store(DirectoryStore(tmp_path, "https://files.example"), look)
    assert objects(tmp_path) == []
