"""`smidr build` with the real OE-Core: recipes, packages and an image, on several releases.

Takes the git repositories from SMIDR_TEST_OE_CORE and SMIDR_TEST_BITBAKE (clones or URLs), and
the releases from SMIDR_TEST_OE_RELEASES, as `branch:bitbake-branch`.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest
from docker import APIClient

from smidr_ci.images.packages import YOCTO_HOST_PACKAGES
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake, pytest.mark.oecore]

DATA = Path(__file__).resolve().parents[1] / "data" / "oe"
RELEASES = os.environ.get(
    "SMIDR_TEST_OE_RELEASES", "kirkstone:2.0 scarthgap:2.8 wrynose:2.18"
).split()
HOSTCC_PACKAGES = ("apt-utils", "dpkg-dev", "openssl", "pkg-config", "pseudo", "quilt", "rsync")
CONFIG = """\
name: oe
yocto_series: {branch}
base: {{provider: oe-core, machine: qemux86-64, distro: smidr-hostcc}}
layers:
  - {{name: bitbake, git: {bitbake}, branch: "{bitbake_branch}", layers: []}}
  - {{name: oe-core, git: {core}, branch: {branch}}}
  - {{name: ours, path: {data}}}
build: {{image: sensor-image}}
features: {{user_classes: [buildstats]}}
advanced: {{bb_no_network: true}}
container: {{packages: {packages}}}
artifacts: ["images/**/*.tar.gz", "deb/**"]
local_conf:
  - BBMASK = "/smidr/layers/oe-core/meta/recipes-"
  - CONNECTIVITY_CHECK_URIS = ""
  - SANITY_TESTED_DISTROS = ""
  - PATCHRESOLVE = "noop"
"""


def repository_url(variable: str) -> str:
    """The repository that the variable names, as a URL; skips when it names none."""
    found = os.environ.get(variable, "")
    if not found:
        pytest.skip(f"{variable} is not set: give it a git repository (a clone or a URL)")
    return Path(found).resolve().as_uri() if Path(found).exists() else found


@pytest.fixture(params=RELEASES)
def smidr(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    docker_client: APIClient,
) -> Smidr:
    """A project that builds `sensor-image` with one release."""
    assert docker_client.ping()
    branch, _, bitbake_branch = request.param.partition(":")
    text = CONFIG.format(
        branch=branch,
        bitbake_branch=bitbake_branch,
        bitbake=repository_url("SMIDR_TEST_BITBAKE"),
        core=repository_url("SMIDR_TEST_OE_CORE"),
        data=DATA,
        packages=json.dumps(sorted({*YOCTO_HOST_PACKAGES, *HOSTCC_PACKAGES})),
    )
    (tmp_path / "smidr.yaml").write_text(text)
    return Smidr(tmp_path / "home", tmp_path)


def test_an_image_is_built_from_packages_and_restored_in_a_fresh_workspace(
    smidr: Smidr,
) -> None:
    first = smidr.build()
    paths = [artifact["path"] for artifact in first["artifacts"]]
    assert any(path.endswith(".deb") and "sensor" in path for path in paths)
    root = smidr.home / "artifacts" / "default" / first["build_id"]
    (image,) = {(root / path).resolve() for path in paths if path.endswith(".tar.gz")}
    with tarfile.open(image) as archive:
        names = [member.name for member in archive]
    assert any("sensor" in name for name in names)
    assert first["tasks"]["recipes_parsed"] > 0

    second = smidr.build()
    assert second["tasks"]["recipes_parsed"] == 0
    assert second["sstate"]["local"] > 0
    assert second["tasks"]["executed"] < first["tasks"]["executed"] / 2

    failed = smidr("build", "-t", "no-such-recipe", "--json")
    assert failed.code == 1
    assert failed.json["findings"][0]["category"] == "missing-provider"
    assert "no-such-recipe" in failed.json["failure_message"]
