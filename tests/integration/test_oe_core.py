"""Real OE-Core builds by driver and conf files: native recipes, packages, a root filesystem.

SMIDR_TEST_OE_CORE and SMIDR_TEST_BITBAKE name git repositories (clones or URLs);
SMIDR_TEST_OE_RELEASES the releases, as `branch:bitbake-branch`.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smidr_ci.bitbake.parse_cache import cache_files
from smidr_ci.config.models import Container
from smidr_ci.containers.docker_engine import DockerRuntime
from smidr_ci.containers.user import builder_user
from smidr_ci.engine import Engine
from smidr_ci.images.model import ImageSettings, proxy_environment
from smidr_ci.images.packages import YOCTO_HOST_PACKAGES
from smidr_ci.images.store import ImageStore
from tests.fakes.bitbake_site import check_out
from tests.fakes.driver_builds import BuildSite, Checkout, Ended, layer_tree

pytestmark = [pytest.mark.docker, pytest.mark.bitbake, pytest.mark.oecore]

DATA = Path(__file__).resolve().parents[1] / "data" / "oe"
RELEASES = os.environ.get(
    "SMIDR_TEST_OE_RELEASES", "kirkstone:2.0 scarthgap:2.8 wrynose:2.18"
).split()
HOSTCC_PACKAGES = ("apt-utils", "dpkg-dev", "openssl", "pkg-config", "pseudo", "quilt", "rsync")
LOCAL_CONF = (
    # OE-Core's own recipes would be parsed for a minute and not be used.
    'BBMASK = "/smidr/layers/oe-core/meta/recipes-"',
    'CONNECTIVITY_CHECK_URIS = ""',
    'SANITY_TESTED_DISTROS = ""',
    'PATCHRESOLVE = "noop"',
)
NATIVE: dict[str, Any] = {
    "base": {"machine": "qemux86-64"},
    "features": {"user_classes": ["buildstats"]},
    "packages": {"classes": ["ipk"]},
    "advanced": {"bb_no_network": True},
    "local_conf": [
        *LOCAL_CONF,
        'ASSUME_PROVIDED += "quilt-native patch-replacement-native virtual/fakeroot-native"',
    ],
}
HOSTCC: dict[str, Any] = {
    "base": {"machine": "qemux86-64", "distro": "smidr-hostcc"},
    "features": {"user_classes": ["buildstats"]},
    "advanced": {"bb_no_network": True},
    "local_conf": list(LOCAL_CONF),
}


def repository(variable: str, branch: str) -> str:
    """The repository that the variable names; skips when it names none."""
    found = os.environ.get(variable, "")
    if not found:
        pytest.skip(f"{variable} is not set: give it a clone (or the URL) with branch {branch}")
    return found


@pytest.fixture(scope="module", params=RELEASES)
def release(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, Path]:
    """BitBake and OE-Core of one release."""
    branch, _, bitbake_branch = request.param.partition(":")
    root = tmp_path_factory.mktemp(branch)
    bitbake = check_out(
        repository("SMIDR_TEST_BITBAKE", bitbake_branch), bitbake_branch, root / "bitbake"
    )
    core = check_out(repository("SMIDR_TEST_OE_CORE", branch), branch, root / "oe-core")
    return Checkout(bitbake_branch, bitbake), core


@pytest.fixture(scope="module")
def builder_image(engine: Engine, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with all that OE-Core asks for, and what the hostcc distro uses."""
    store = ImageStore(
        engine,
        ImageSettings(environment=proxy_environment(os.environ)),
        locks=tmp_path_factory.mktemp("locks"),
    )
    packages = sorted({*YOCTO_HOST_PACKAGES, *HOSTCC_PACKAGES})
    container = Container.model_validate({"base_image": base_image, "packages": packages})
    return store.ensure(container, report=print).id


@pytest.fixture
def site(
    engine: Engine, builder_image: str, release: tuple[Checkout, Path], tmp_path: Path
) -> Iterator[BuildSite]:
    bitbake, core = release
    site = BuildSite(
        DockerRuntime(engine=engine),
        builder_image,
        builder_user(os.environ),
        tmp_path / "site",
        bitbake,
        (
            layer_tree("oe-core", core, "core", "meta"),
            layer_tree("meta-smidr-test", DATA / "meta-smidr-test", "smidr-test"),
            layer_tree("meta-smidr-hostcc", DATA / "meta-smidr-hostcc", "smidr-hostcc"),
        ),
        init_script="/smidr/layers/oe-core/oe-init-build-env",
    )
    yield site
    site.clean_up()


def native_only(site: BuildSite) -> BuildSite:
    """Without the distro layer, whose stand-ins would be taken for the real recipes."""
    site.trees = site.trees[:2]
    return site


def assert_built(ended: Ended) -> None:
    assert ended.exit.code == 0, ended.console[-5000:]
    assert ended.progress.failures == ()
    assert [event for event in ended.named("log") if event["level"] != "warning"] == []


def test_native_recipes_are_built_and_deployed(site: BuildSite) -> None:
    ended = native_only(site).run("greeting-image", config=NATIVE)
    assert_built(ended)
    deployed = site.topdir / "tmp" / "deploy" / "images" / "qemux86-64" / "greeting.txt"
    assert deployed.read_text() == "good morning, smidr\n"
    assert ended.progress.sstate is not None
    assert ended.progress.sstate.missed == ended.progress.sstate.wanted > 0
    assert ended.progress.tasks_executed > 10


def test_a_second_directory_takes_everything_from_sstate(site: BuildSite, tmp_path: Path) -> None:
    assert_built(native_only(site).run("greeting-image", config=NATIVE))
    site.topdir.rename(tmp_path / "site" / "first-build")
    ended = site.run("greeting-image", config=NATIVE)
    assert_built(ended)
    sstate = ended.progress.sstate
    assert sstate is not None
    assert (sstate.local, sstate.missed) == (sstate.wanted, 0)
    assert ended.progress.tasks_from_sstate > 0
    assert not [one for one in ended.named("task-succeeded") if one["task"] == "do_compile"]


def test_target_packages_and_a_root_filesystem_are_built(site: BuildSite) -> None:
    ended = site.run("sensor-image", config=HOSTCC)
    assert_built(ended)
    images = site.topdir / "tmp" / "deploy" / "images" / "qemux86-64"
    (image,) = [path for path in images.glob("sensor-image*.tar.gz") if not path.is_symlink()]
    with tarfile.open(image) as archive:
        program = archive.getmember("./usr/bin/sensor")
        assert (program.uid, program.mode) == (0, 0o755)
        assert archive.getmember("./etc/sensor.conf").isfile()
    packages = [path.name for path in (site.topdir / "tmp" / "deploy" / "deb").rglob("*.deb")]
    assert any(name.startswith("sensor_1.2-r0") for name in packages)


def test_a_compile_error_is_told_with_its_log(site: BuildSite) -> None:
    ended = native_only(site).run("broken-native", config=NATIVE)
    assert ended.exit.code == 1
    (failure,) = ended.progress.failures
    assert (failure.pn, failure.pv, failure.task) == ("broken-native", "0.1", "do_compile")
    log = site.topdir / Path(failure.logfile).relative_to("/smidr/build")
    assert "missing_symbol" in log.read_text()


def test_a_parse_cache_is_used_in_a_fresh_directory(site: BuildSite, tmp_path: Path) -> None:
    assert_built(native_only(site).run("greeting-image", config=NATIVE))
    first = tmp_path / "site" / "first-build"
    site.topdir.rename(first)
    site.seed(first, cache_files(first))
    progress = site.run("greeting-image", config=NATIVE).progress
    assert progress.recipes_parsed == 0
    assert progress.recipes_cached == progress.recipes > 0
