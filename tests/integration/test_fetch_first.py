"""`build.fetch_first` with real BitBake: all sources first, then a build without network."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker import APIClient

from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_NOTE = """
do_compile:prepend() {
    echo "no network: ${BB_NO_NETWORK}" > ${DL_DIR}/seen-by-compile
}
"""


def test_the_build_after_the_fetch_has_no_network_and_no_second_parse(
    tmp_path: Path, hello_project: HelloProject, docker_client: APIClient
) -> None:
    assert docker_client.ping()
    recipe = "meta-hello/recipes/hello/hello_1.0.bb"
    text = (hello_project.root / recipe).read_text()
    hello_project.edit(recipe, text, text + _NOTE)
    config = hello_project.config.read_text()
    assert config.count("\nbuild:\n") == 1
    hello_project.config.write_text(config.replace("\nbuild:\n", "\nbuild:\n  fetch_first: true\n"))
    smidr = Smidr(tmp_path / "home", hello_project.work)
    record = smidr.build()
    assert record["tasks"]["recipes_cached"] == record["tasks"]["recipes"] > 0
    assert record["description"]
    seen = (smidr.home / "downloads" / "seen-by-compile").read_text()
    assert seen == "no network: 1\n"
