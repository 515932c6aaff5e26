"""A stranger's layers: what everybody could read, whatever this host has."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidr_ci.builds.stranger import SCHEMES
from smidr_ci.config.models import LayerEntry
from smidr_ci.errors import LayerError
from smidr_ci.layers.credentials import Credentials, HostCredentials
from tests.fakes.git_repository import GitRepository
from tests.fakes.git_server import GitServer
from tests.unit.layers.conftest import Site

STRANGER = {"credentials": Credentials(), "schemes": SCHEMES, "proves_access": True}


def entry_for(server: GitServer, **values: object) -> LayerEntry:
    return LayerEntry.model_validate({"name": "poky", "git": server.url("poky/.git"), **values})


@pytest.fixture
def private(site: Site, poky: GitRepository, server: GitServer) -> LayerEntry:
    """A repository that asks for a password, and that a trusted build has brought here."""
    server.password = ("oauth2", "secret")
    token = HostCredentials("127.0.0.1", token="secret")
    site.options = {"credentials": Credentials(hosts=(token,))}
    entry = entry_for(server, commit=poky.git("rev-parse", "HEAD"))
    site.sync(entry)
    return entry


def test_a_private_layer_that_is_here_already_stays_private(
    site: Site, private: LayerEntry
) -> None:
    site.sync(private)
    site.options = STRANGER
    with pytest.raises(LayerError, match="poky"):
        site.sync(private)


def test_a_mirror_of_the_strangers_own_does_not_open_it(
    site: Site, private: LayerEntry, server: GitServer, tmp_path: Path
) -> None:
    other = GitRepository(tmp_path / "served" / "other")
    other.commit({"file": ""})
    site.options = STRANGER
    mirror = private.model_copy(update={"mirrors": (f"{server.base}/other/.git",)})
    with pytest.raises(LayerError, match="poky"):
        site.sync(mirror)
    assert server.asked("other") == 0


def test_a_login_that_is_allowed_opens_it(site: Site, private: LayerEntry) -> None:
    site.options = {**site.options, **STRANGER, "credentials": site.options["credentials"]}
    assert site.sync(private).trees[0].name == "poky"


def test_a_public_layer_is_used_as_it_is_here(
    site: Site, poky: GitRepository, server: GitServer
) -> None:
    entry = entry_for(server, commit=poky.git("rev-parse", "HEAD"))
    first = site.sync(entry)
    site.options = STRANGER
    assert site.sync(entry).trees == first.trees


def test_a_file_of_this_host_is_no_layer_for_a_stranger(site: Site, poky: GitRepository) -> None:
    site.options = STRANGER
    with pytest.raises(LayerError, match="file URLs are not allowed here"):
        site.sync(LayerEntry.model_validate({"name": "poky", "git": poky.url}))
