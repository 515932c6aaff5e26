"""Why builds run tasks again, under real BitBake: the task and variable or file to blame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from tests.fakes.hello import HelloProject
from tests.fakes.smidr_process import Smidr

pytestmark = [pytest.mark.docker, pytest.mark.bitbake]

_SOURCE = "meta-hello/recipes/hello/files/hello.c"
_RECIPE = "meta-hello/recipes/hello/hello_1.0.bb"


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for the module: a build's predecessor is another test's, or its own."""
    return tmp_path_factory.mktemp("smidr-home")


@pytest.fixture
def smidr(shared_home: Path, hello_project: HelloProject, docker_client: APIClient) -> Smidr:
    assert docker_client.ping()
    smidr = Smidr(shared_home, hello_project.work)
    smidr.build()
    return smidr


def _reason(record: dict[str, Any]) -> dict[str, Any]:
    (reason,) = record["rebuilt"]
    assert isinstance(reason, dict)
    return reason


def test_a_changed_source_is_named_with_its_recipe(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    hello_project.edit(_SOURCE, "puts(line)", 'printf("%s\\n", line)')
    reason = _reason(smidr.build())
    assert (reason["recipe"], reason["task"]) == ("hello", "do_fetch")
    assert reason["kind"] == "file"
    assert reason["name"].endswith("hello.c")
    assert "hello:do_fetch, because file " in smidr("status").out
    text = smidr("status", "--format", "markdown").out
    assert "hello.c changed" in text
    assert "; previous build: " in text


def test_a_changed_variable_is_named_with_both_values(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    hello_project.edit(_RECIPE, "do_compile() {", 'CFLAGS:append = " -DLOUD"\n\ndo_compile() {')
    reason = _reason(smidr.build())
    assert (reason["recipe"], reason["task"]) == ("hello", "do_compile")
    assert (reason["kind"], reason["name"]) == ("variable", "CFLAGS")
    assert "-DLOUD" in reason["text"]


def test_a_dependency_is_blamed_and_not_what_depends_on_it(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    recipe = "meta-hello/recipes/greeter/greeter_1.0.bb"
    hello_project.edit(recipe, "do_install() {\n", "do_install() {\n    : another step\n")
    record = smidr.build()
    assert record["sstate"]["missed"] >= 3
    reason = _reason(record)
    assert (reason["recipe"], reason["task"]) == ("greeter", "do_install")
    assert (reason["kind"], reason["name"]) == ("code", "do_install")
    assert "another step" in reason["text"]


def test_a_build_goes_back_to_what_it_was_without_a_reason(smidr: Smidr) -> None:
    record = smidr.build()
    assert record["sstate"]["missed"] == 0
    assert record["rebuilt"] == []


def test_a_failed_build_says_what_had_changed(smidr: Smidr, hello_project: HelloProject) -> None:
    hello_project.edit(_SOURCE, "puts(line);", "puts(line)")
    assert smidr("build").code == 1
    record = smidr.newest()
    assert record["findings"][0]["category"] == "compile"
    reason = _reason(record)
    assert (reason["recipe"], reason["kind"]) == ("hello", "file")


def test_warnings_are_findings_and_fail_when_the_project_wants_that(
    smidr: Smidr, hello_project: HelloProject
) -> None:
    warning = "QA Issue: hello: Files/directories were installed but not shipped [installed]"
    hello_project.edit(_RECIPE, "do_install() {\n", f"do_install() {{\n    bbwarn '{warning}'\n")
    record = smidr.build()
    assert record["state"] == "completed"
    assert record["tasks"]["warnings"] == 1
    (finding,) = record["findings"]
    assert (finding["severity"], finding["category"]) == ("warning", "package-qa")
    assert re.search(r"^Warnings +1$", smidr("status").out, re.MULTILINE)
    strict = hello_project.config.read_text().replace(
        "  image:", "  fail_on_warnings: [package-qa]\n  image:"
    )
    (hello_project.work / "strict.yaml").write_text(strict)
    assert smidr.build("-c", "strict.yaml")["findings"] == []  # all from sstate: nothing warns
    hello_project.edit(_RECIPE, "installed]", "installed-vs-shipped]")
    answer = smidr("build", "-c", "strict.yaml")
    assert answer.code == 1
    record = smidr.newest()
    assert record["failure_kind"] == "build"
    assert "build.fail_on_warnings" in record["failure_message"]
    assert record["findings"][0]["severity"] == "error"


def test_each_build_leaves_a_summary(smidr: Smidr) -> None:
    record = smidr.build()
    text = (smidr.home / "builds" / record["build_id"] / "summary.md").read_text()
    assert text.startswith("### hello&#58; hello-image: completed")
    assert "| images/hello-x86/hello-image-hello-x86.cpio.gz |" in text
    assert "| same |" in text
    assert smidr("status", "--format", "json").json["build_id"] == record["build_id"]
