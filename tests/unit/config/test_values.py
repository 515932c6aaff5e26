"""Single values: sizes, jobs, paths, globs, names, lines and commands."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from smidr_ci.config import values
from smidr_ci.config.values import parse_size


def check(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        ("1", 1),
        ("10B", 10),
        ("512K", 512 * 1024),
        ("8G", 8 * 1024**3),
        ("8g", 8 * 1024**3),
        ("8 GiB", 8 * 1024**3),
        ("8GB", 8 * 1024**3),
        ("1.5G", 1536 * 1024**2),
        ("2T", 2 * 1024**4),
    ],
)
def test_sizes_have_binary_units(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "8X",
        "-1",
        -1,
        0,
        "0",
        "8 G B",
        "1e3",
        "\uff11G",
        True,
        1.5,
        None,
        [],
        "9" * 400,
        10**30,
    ],
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize("jobs", [8, "8", "-j8", "-j 8"])
def test_jobs_are_written_as_a_number_or_as_makes_option(jobs: object) -> None:
    assert check(values.ParallelMake, jobs) == 8


@pytest.mark.parametrize("jobs", [0, -1, 4097, "-j", "-j0", "8 -l4", "$(id)", True, 2.0, "-j08"])
def test_other_jobs_are_refused(jobs: object) -> None:
    with pytest.raises(ValidationError, match="write 8 or -j8"):
        check(values.ParallelMake, jobs)


@pytest.mark.parametrize("glob", ["images/**/*.wic", "*.{a,b}", "a..b/c", "...", "a/b"])
def test_globs_below_a_directory_are_taken(glob: str) -> None:
    assert check(values.Glob, glob) == glob


@pytest.mark.parametrize(
    "glob", ["/etc/*", "../x", "a/../b", "a/..", "..", "~/x", "", " ", "a\x00b", "a\nb", "**/" * 9]
)
def test_globs_that_lead_out_or_cost_too_much_are_refused(glob: str) -> None:
    with pytest.raises(ValidationError):
        check(values.Glob, glob)


def test_sub_folders_stay_inside_but_layer_paths_need_not() -> None:
    assert check(values.LayerPath, "../meta-other") == "../meta-other"
    assert check(values.SubFolder, ".") == "."
    with pytest.raises(ValidationError, match="stay inside"):
        check(values.SubFolder, "../meta-other")


@pytest.mark.parametrize(
    "target",
    ["core-image-minimal", "virtual/kernel", "busybox:do_compile", "mc:two:busybox", "g++"],
)
def test_targets_of_bitbake_are_taken(target: str) -> None:
    assert check(values.Target, target) == target


@pytest.mark.parametrize(
    "target", ["-c", "--help", "a b", "a;b", "a\n", "$(id)", "", "mc:x", "a" * 999]
)
def test_a_target_can_be_no_option_and_no_shell(target: str) -> None:
    with pytest.raises(ValidationError, match="not a target"):
        check(values.Target, target)


@pytest.mark.parametrize(
    "ref", ["a..b", "a//b", "-x", "a.lock", "a/", "a/.b", "a b", "a:b", "a^", ""]
)
def test_a_ref_can_be_no_option_and_no_range(ref: str) -> None:
    with pytest.raises(ValidationError, match="branch or tag"):
        check(values.Ref, ref)


@pytest.mark.parametrize("name", ["..", ".", "-x", "a/b", "", "a b", "x" * 64, "a\n"])
def test_a_name_is_safe_as_a_directory(name: str) -> None:
    with pytest.raises(ValidationError, match="not a name"):
        check(values.Slug, name)


def test_a_short_or_upper_case_commit_is_refused() -> None:
    for commit in ("abc123", "A" * 40, "a" * 41):
        with pytest.raises(ValidationError, match="full commit id"):
            check(values.Commit, commit)


@pytest.mark.parametrize("value", [1, 0, "true", "yes", None])
def test_a_flag_is_nothing_but_true_or_false(value: object) -> None:
    with pytest.raises(ValidationError):
        check(values.Flag, value)


def test_lines_are_written_as_one_text_or_as_a_list() -> None:
    assert check(values.ConfLines, 'A = "1"\nB = "2"  \n\n') == ('A = "1"', 'B = "2"')
    assert check(values.ConfLines, ['A = "1"', 'B = "2"\nC = "3"']) == (
        'A = "1"',
        'B = "2"',
        'C = "3"',
    )


@pytest.mark.parametrize("lines", [1, {"a": "b"}, [1], ["\x1b[2J"], ["a\rb"], ["x" * 5000]])
def test_lines_hold_no_control_characters_and_have_an_end(lines: object) -> None:
    with pytest.raises(ValidationError):
        check(values.ConfLines, lines)


def test_mirror_pairs_may_be_parted_as_in_a_conf_file() -> None:
    written = "file://.* http://a/PATH \\n file://.* http://b/PATH"
    assert check(values.MirrorLines, written) == (
        "file://.* http://a/PATH",
        "file://.* http://b/PATH",
    )
    with pytest.raises(ValidationError, match="a pattern, a space and a replacement"):
        check(values.MirrorLines, ["http://a/PATH"])


def test_a_command_is_split_as_a_shell_would() -> None:
    assert check(values.Command, "nice -n 5 'a b'") == ("nice", "-n", "5", "a b")
    assert check(values.Command, ["nice", "-n", "5"]) == ("nice", "-n", "5")
    for wrong in ("", [], [""], "nice 'x"):
        with pytest.raises(ValidationError):
            check(values.Command, wrong)
