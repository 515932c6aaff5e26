"""Which build a job asks for, and the order that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smidr_ci.builds.ids import check_customer
from smidr_ci.errors import ConfigError
from smidr_ci.forges.gitlab.context import context_of
from smidr_ci.forges.gitlab.durations import duration_text, parse_duration
from smidr_ci.forges.gitlab.orders import order_for
from smidr_ci.forges.gitlab.parsing import parse_job
from smidr_ci.forges.gitlab.script import BuildCall, read_script
from smidr_ci.forges.registration import Registration
from smidr_ci.trust import Trust
from tests.fakes.gitlab.site import payload


def order(project: Path, build: BuildCall, customer: str = "", **changes: Any) -> Any:
    job = parse_job(payload(**changes))
    registration = Registration("lab", "gitlab", "https://h", "glrt-x12345678", customer=customer)
    return order_for(context_of(registration, job), build, project, Trust.TRUSTED)


def test_a_line_of_its_own_asks_for_the_build() -> None:
    lines = ["echo a", "  smidr ci build -c sub/smidr.yaml -t one -t two --clean  # all", "echo b"]
    found = read_script(lines, {})
    assert (found.before, found.after) == (("echo a",), ("echo b",))
    assert found.build == BuildCall("sub/smidr.yaml", ("one", "two"), clean=True)


def test_the_plain_command_with_a_target_works_too() -> None:
    found = read_script(["smidr build core-image-minimal --locked"], {})
    assert found.build == BuildCall("smidr.yaml", ("core-image-minimal",), locked=True)


def test_variables_say_config_and_target_when_the_call_does_not() -> None:
    variables = {"SMIDR_CONFIG": "a.yaml", "SMIDR_TARGET": "x, y", "M": "qemu"}
    found = read_script(["smidr ci build -e MACHINE_X=$M"], variables)
    assert found.build == BuildCall("a.yaml", ("x", "y"), environment=(("MACHINE_X", "qemu"),))


def test_a_value_of_a_variable_is_one_word_whatever_is_in_it() -> None:
    found = read_script(["smidr ci build -t $T"], {"T": "a --clean; rm -rf /"})
    assert found.build.targets == ("a --clean; rm -rf /",)
    assert not found.build.clean


def test_with_only_the_variable_the_build_comes_last() -> None:
    found = read_script(["echo a"], {"SMIDR_CONFIG": "a.yaml"})
    assert (found.before, found.build.config, found.after) == (("echo a",), "a.yaml", ())


@pytest.mark.parametrize(
    "line",
    [
        "if true; then smidr ci build; fi",
        "smidr ci build && echo done",
        "smidr ci build | tee log",
        "smidr list",
        "smidr 'ci build",
        "smidr ci build\necho more",
        "smidrx ci build",
    ],
)
def test_what_only_a_shell_could_read_is_no_call(line: str) -> None:
    with pytest.raises(ConfigError, match="names no smidr config"):
        read_script([line], {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("smidr ci build --cleen", "No such option"),
        ("smidr ci build -e X", "NAME=VALUE"),
        ("smidr ci build -c", "requires an argument"),
    ],
)
def test_a_call_that_makes_no_sense_is_an_error_with_its_line(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_script([line], {})
    assert caught.value.where == line


def test_two_builds_in_one_job_are_refused() -> None:
    with pytest.raises(ConfigError, match="one job is one build"):
        read_script(["smidr ci build", "smidr ci build -t x"], {})


def test_an_order_takes_only_the_variables_that_the_config_names(tmp_path: Path) -> None:
    (tmp_path / "smidr.yaml").write_text("name: p\nx: ${VERSION}-${MISSING}\n")
    variables = {"VERSION": "1.2", "OTHER": "no", "SMIDR_ENVIRONMENT": "OTHER"}
    made = order(tmp_path, BuildCall("smidr.yaml", ("t",)), variables=variables)
    assert made.variables == {"VERSION": "1.2"}
    assert made.environment == {"OTHER": "no"}
    assert made.is_confined
    assert made.directory == tmp_path
    assert made.requested_by == "gitlab lab: job 42 of acme/distro (image)"


@pytest.mark.parametrize(
    ("text", "variables", "call"),
    [
        ("x: ${PASSWORD}", {}, BuildCall("smidr.yaml")),
        ("x: ${DERIVED}", {"DERIVED": "a-$PASSWORD"}, BuildCall("smidr.yaml")),
        ("x: 1", {"SMIDR_ENVIRONMENT": "PASSWORD"}, BuildCall("smidr.yaml")),
        ("x: 1", {}, BuildCall("smidr.yaml", environment=(("P", "hunter22"),))),
    ],
)
def test_what_is_masked_does_not_get_into_a_builds_record(
    tmp_path: Path, text: str, variables: dict[str, str], call: BuildCall
) -> None:
    (tmp_path / "smidr.yaml").write_text(text)
    job = payload(variables=variables)
    job["variables"].append({"key": "PASSWORD", "value": "hunter22", "masked": True})
    registration = Registration("lab", "gitlab", "https://h", "glrt-x12345678")
    with pytest.raises(ConfigError, match="masked in GitLab") as caught:
        order_for(context_of(registration, parse_job(job)), call, tmp_path, Trust.TRUSTED)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("config", ["/etc/passwd", "../smidr.yaml", "out/smidr.yaml", "a\0b", ""])
def test_a_config_must_lie_in_the_project(tmp_path: Path, config: str) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (tmp_path / "smidr.yaml").write_text("name: p\n")
    (project / "out").symlink_to(tmp_path)
    with pytest.raises(ConfigError):
        order(project, BuildCall(config))


def test_a_directory_means_the_config_in_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "smidr.yaml").write_text("name: p\n")
    assert order(tmp_path, BuildCall("sub")).directory == tmp_path / "sub"


@pytest.mark.parametrize("path", ["acme/distro", "Ä/Ö", "a" * 200 + "/b", "x/../../y", "-/-", ""])
def test_a_customer_is_one_per_project_and_fit_for_an_id(tmp_path: Path, path: str) -> None:
    (tmp_path / "smidr.yaml").write_text("name: p\n")
    info = {"project_id": 123456, "project_full_path": path, "name": "j"}
    made = order(tmp_path, BuildCall("smidr.yaml"), job_info=info)
    assert check_customer(made.customer).endswith("-123456")
    assert order(tmp_path, BuildCall("smidr.yaml"), customer="acme").customer == "acme"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 5400),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("", None),
        ("5", None),
        ("-5m", None),
        ("0s", None),
        ("1h 30m", None),
        ("m", None),
    ],
)
def test_durations_are_read_as_go_does(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


def test_durations_are_shown_as_gitlab_does() -> None:
    assert [duration_text(seconds) for seconds in (5, 65, 7200)] == ["5s", "1m5s", "2h0m0s"]
