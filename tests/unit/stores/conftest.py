"""One store of each kind, on real servers behind a proxy that can make trouble."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from smidr_ci.config.stores import StoreSettings
from smidr_ci.stores.model import ObjectStore
from smidr_ci.stores.opening import open_store
from tests.fakes.fault_proxy import FaultProxy, proxy_to
from tests.fakes.store_servers import KEY_ID, PASSWORD, moto_server, rclone_server, s3_login

KINDS = ("directory", "webdav", "s3")
"""And `moto`, which keeps metadata as Amazon does, where a test asks for it."""
_NUMBERS = itertools.count()


@dataclass(frozen=True)
class Room:
    """A store that is empty, and what it is kept on."""

    kind: str
    settings: StoreSettings
    store: ObjectStore
    proxy: FaultProxy | None
    folder: Path
    pauses: list[float]

    @property
    def faulty(self) -> FaultProxy:
        assert self.proxy is not None
        return self.proxy


@pytest.fixture(scope="session", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Kind and URL of one running server."""
    kind = request.param
    root = tmp_path_factory.mktemp("stored")
    with contextlib.ExitStack() as stack:
        if kind == "moto":
            yield f"moto {stack.enter_context(moto_server())}"
        elif kind == "directory":
            yield f"directory {root}"
        else:
            yield f"{kind} {stack.enter_context(rclone_server(kind, root))}"


@pytest.fixture
def room(server: str, tmp_path: Path) -> Iterator[Room]:
    kind, _, url = server.partition(" ")
    with contextlib.ExitStack() as stack:
        proxy = None if kind == "directory" else stack.enter_context(proxy_to(url))
        settings = _settings(kind, proxy.url if proxy is not None else url, tmp_path)
        pauses: list[float] = []
        store = stack.enter_context(contextlib.closing(open_store(settings, pause=pauses.append)))
        yield Room(kind, settings, store, proxy, tmp_path, pauses)


def _settings(kind: str, url: str, folder: Path) -> StoreSettings:
    number = next(_NUMBERS)
    if kind == "directory":
        place = Path(url) / f"room {number}"
        place.mkdir()
        return StoreSettings(url=f"file://{str(place).replace(' ', '%20')}")
    if kind == "webdav":
        login = folder / "login"
        login.write_text(f"{KEY_ID}:{PASSWORD}\n")
        login.chmod(0o600)
        return StoreSettings(url=f"{url}/room-{number}/deep", credentials_file=login)
    login = s3_login(folder)
    settings = StoreSettings(
        url=f"s3://bucket-{number}/some/prefix", endpoint=url, credentials_file=login
    )
    from smidr_ci.stores.s3_client import make_client

    with contextlib.closing(make_client(settings)) as client:
        client.create_bucket(Bucket=f"bucket-{number}")
    return settings
