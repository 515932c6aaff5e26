from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from smidr_ci.diagnosis.engine import diagnose
from smidr_ci.diagnosis.model import (
    Category,
    Diagnosis,
    DiagnosisContext,
    LayerMount,
    Severity,
)

WORK = "/smidr/build/tmp/work/core2-64-demo-linux/demo/1.0"
RECIPE = "/smidr/layers/meta-demo/recipes-demo/demo/demo_1.0.bb"

FAILED = f"""\
ERROR: demo-1.0-r0 {{task}}: ExecutionError('{WORK}/temp/run.{{task}}.77', 1, None, None)
ERROR: Logfile of failure stored in: {WORK}/temp/log.{{task}}.77
Log data follows:
{{output}}
ERROR: Task ({RECIPE}:{{task}}) failed with exit code '1'
NOTE: Tasks Summary: Attempted 40 tasks of which 30 didn't need to be rerun and 1 failed.

Summary: 1 task failed:
  {RECIPE}:{{task}}
Summary: There were 2 ERROR messages, returning a non-zero exit code.
"""

SUCCEEDED = """\
NOTE: Executing Tasks
{lines}
NOTE: Tasks Summary: Attempted 40 tasks of which 30 didn't need to be rerun and all succeeded.
"""


def of(text: str, context: DiagnosisContext | None = None) -> Diagnosis:
    return diagnose(io.BytesIO(text.encode()), context=context)


def task(output: str, name: str = "do_compile") -> str:
    lines = "\n".join(f"| {line}" for line in output.splitlines())
    return FAILED.format(task=name, output=lines)


def test_the_first_compiler_error_wins_over_make_and_the_task_that_reports_it() -> None:
    primary = of(
        task(
            "make: Entering directory '/x'\n"
            "../demo-1.0/a.c:3:7: warning: unused\n"
            "../demo-1.0/a.c:9:2: error: expected ';' before 'return'\n"
            "../demo-1.0/a.c:12:2: error: 'y' undeclared\n"
            "make: *** [Makefile:4: a.o] Error 1\n"
            "ERROR: oe_runmake failed"
        )
    ).primary
    assert primary is not None
    assert primary.category is Category.COMPILE
    assert primary.message == "| ../demo-1.0/a.c:9:2: error: expected ';' before 'return'"
    assert (primary.file, primary.line, primary.column) == ("../demo-1.0/a.c", 9, 2)
    assert (primary.recipe, primary.version, primary.task) == ("demo", "1.0", "do_compile")
    assert primary.task_log == f"{WORK}/temp/log.do_compile.77"
    assert primary.reproduce == "bitbake -c compile -f demo"
    assert primary.log_line is not None
    assert primary.excerpt
    assert any(line.number == primary.log_line for line in primary.excerpt)


def test_a_kill_for_memory_explains_the_errors_that_it_leaves_behind() -> None:
    primary = of(
        task(
            "{standard input}: Assembler messages:\n"
            "{standard input}:123: Error: unknown pseudo-op: `.'\n"
            "x86_64-demo-linux-g++: fatal error: Killed signal terminated program cc1plus\n"
            "make: *** [Makefile:4: a.o] Error 1"
        )
    ).primary
    assert primary is not None
    assert primary.category is Category.OUT_OF_MEMORY
    assert "Killed signal" in primary.message
    assert primary.retryable


@pytest.mark.parametrize(
    ("name", "output", "category"),
    [
        ("do_configure", "configure: error: libfoo not found", Category.CONFIGURE),
        (
            "do_configure",
            '../demo-1.0/meson.build:3:0: ERROR: Dependency "foo" not found',
            Category.CONFIGURE,
        ),
        (
            "do_install",
            "install: cannot stat 'demo.conf': No such file or directory",
            Category.INSTALL,
        ),
        ("do_compile", "ld: cannot find -lfoo: No such file or directory", Category.LINK),
        ("do_compile", "main.o: in function `main': undefined reference to `foo'", Category.LINK),
        ("do_compile", "error[E0425]: cannot find value `x` in this scope", Category.COMPILE),
        ("do_compile", "tar: write error: No space left on device", Category.DISK_SPACE),
        (
            "do_compile",
            "go: example.org/x@v1: dial tcp: lookup proxy.example.org: no such host",
            Category.NETWORK_DENIED,
        ),
        ("do_rootfs", " * - nothing provides libfoo needed by demo-1.0-r0.core2", Category.ROOTFS),
    ],
)
def test_the_tool_and_the_task_decide_on_the_category(
    name: str, output: str, category: Category
) -> None:
    primary = of(task(output, name)).primary
    assert primary is not None
    assert primary.category is category
    assert primary.message.endswith(output)
    assert primary.task == name


def test_a_log_without_a_cause_says_what_failed_and_where_to_look() -> None:
    primary = of(task("NOTE: make -j 8")).primary
    assert primary is not None
    assert not primary.cause_visible
    assert primary.recipe == "demo"
    assert f"{WORK}/temp/log.do_compile.77" in primary.hint


def test_a_skipped_recipe_is_the_reason_for_a_missing_provider() -> None:
    diagnosis = of(
        "ERROR: Nothing PROVIDES 'demo-gl' (but /l/app_1.bb DEPENDS on or otherwise requires it)\n"
        "demo-gl was skipped: missing required distro feature 'opengl' (not in DISTRO_FEATURES)\n"
        "NOTE: Runtime target 'app' is unbuildable, removing...\n"
        "Missing or unbuildable dependency chain was: ['image', 'app', 'demo-gl']\n"
        "ERROR: Required build target 'image' has no buildable providers.\n"
        "Missing or unbuildable dependency chain was: ['image', 'app', 'demo-gl']\n"
    )
    assert len(diagnosis.findings) == 1
    finding = diagnosis.findings[0]
    assert finding.category is Category.MISSING_PROVIDER
    assert finding.message.startswith("demo-gl was skipped")
    assert (finding.recipe, finding.file) == ("app", "/l/app_1.bb")


def test_a_layer_of_another_release_explains_the_parse_errors() -> None:
    diagnosis = of(
        "ERROR: ParseError at /l/meta-x/a.bb:3: Could not inherit file classes/new.bbclass\n"
        "ERROR: Layer x is not compatible with the core layer which only supports these series: "
        "scarthgap (layer is compatible with wrynose)\n"
        "ERROR: Parsing halted due to errors, see error messages above\n"
    )
    assert diagnosis.findings[0].category is Category.LAYER_COMPAT
    assert diagnosis.findings[0].consequence_count == 2
    assert len(diagnosis.findings) == 1


def test_two_failed_tasks_are_two_findings_each_with_its_own_cause() -> None:
    second = task("other.c:5:1: error: no").replace("demo", "other")
    diagnosis = of(task("a.c:1:1: error: yes") + second)
    assert [(item.recipe, item.message) for item in diagnosis.findings] == [
        ("demo", "| a.c:1:1: error: yes"),
        ("other", "| other.c:5:1: error: no"),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        "NOTE: recipe demo-1.0-r0: task do_compile: Started",
        "| checking for error... no\n| a.c:1: warning: not found",
        "WARNING: demo-1.0-r0 do_fetch: Failed to fetch URL https://x/y.tar, attempting MIRRORS",
        "demo-1.0-r0 do_configure: conftest.c:3:1: error: unknown type name 'x'",
        "DEBUG: error: this is fine",
    ],
)
def test_nothing_is_invented_for_a_build_that_succeeded(lines: str) -> None:
    diagnosis = of(SUCCEEDED.format(lines=lines))
    assert diagnosis.findings == ()
    assert diagnosis.summary.succeeded


@pytest.mark.parametrize(
    "lines",
    [
        "NOTE: recipe demo-1.0-r0: task do_compile: Started\nmake: cannot find anything odd",
        "WARNING: demo-1.0-r0 do_install: see /b/tmp/work/a-b/demo/1.0/temp/log.do_install",
        "fatal: not a git repository (or any of the parent directories): .git",
    ],
)
def test_nothing_is_invented_for_a_log_that_ends_before_the_build(lines: str) -> None:
    assert of(f'BB_VERSION           = "2.8.0"\nNOTE: Executing Tasks\n{lines}\n').findings == ()


def test_a_qa_warning_is_a_finding_of_lower_severity() -> None:
    line = "WARNING: demo-1.0-r0 do_package_qa: QA Issue: demo rdepends on x [build-deps]"
    diagnosis = of(SUCCEEDED.format(lines=line))
    assert [item.severity for item in diagnosis.findings] == [Severity.WARNING]
    assert diagnosis.primary is None
    strict = of(SUCCEEDED.format(lines=line), context=DiagnosisContext(warnings_as_errors=True))
    assert strict.primary is not None


def test_places_are_mapped_to_layer_and_repository_path() -> None:
    mount = LayerMount("/smidr/layers/meta-demo", "meta-demo", "https://example.org/d", "c0ffee")
    primary = of(
        f"ERROR: ParseError at {RECIPE}:7: unparsed line: 'FOO -= \"x\"'\n",
        context=DiagnosisContext(layers=(mount,)),
    ).primary
    assert primary is not None
    assert (primary.layer, primary.repo_path, primary.line) == (
        "meta-demo",
        "recipes-demo/demo/demo_1.0.bb",
        7,
    )


def test_a_path_that_leaves_the_layer_is_not_mapped_into_it() -> None:
    mount = LayerMount("/smidr/layers/meta-demo", "meta-demo")
    primary = of(
        "ERROR: ParseError at /smidr/layers/meta-demo/../other/a.bb:7: unparsed line: 'x'\n",
        context=DiagnosisContext(layers=(mount,)),
    ).primary
    assert primary is not None
    assert primary.repo_path is None


def test_a_task_log_holds_the_cause_that_the_console_lacks(tmp_path: Path) -> None:
    log = tmp_path / "00-demo-log.do_compile.77"
    log.write_text("make\nx.c:4:2: error: too few arguments\nmake: *** [x.o] Error 1\n")
    console = tmp_path / "console.log"
    console.write_text(task("NOTE: make"))
    primary = diagnose(console, task_logs=[log]).primary
    assert primary is not None
    assert primary.message == "x.c:4:2: error: too few arguments"
    assert primary.log == str(log)
    assert primary.recipe == "demo"


def test_events_name_recipe_and_version_exactly(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    console.write_text("ERROR: strange-2-1.0-r0 do_compile: oe_runmake failed\n")
    events = tmp_path / "events.jsonl"
    record = {
        "event": "task-failed",
        "pn": "strange-2",
        "pv": "1.0",
        "task": "do_compile",
        "file": "/l/strange-2_1.0.bb",
        "log": "/w/log.do_compile.1",
    }
    events.write_text("{broken\n[]\n" + json.dumps(record) + "\n")
    primary = diagnose(console, events=events).primary
    assert primary is not None
    assert (primary.recipe, primary.version, primary.file, primary.task_log) == (
        "strange-2",
        "1.0",
        "/l/strange-2_1.0.bb",
        "/w/log.do_compile.1",
    )


def test_the_fingerprint_does_not_depend_on_paths_and_process_ids() -> None:
    one = of(task("a.c:1:1: error: yes", "do_compile")).findings[0]
    text = task("a.c:1:1: error: yes", "do_compile").replace(".77", ".1234")
    other = of(text.replace("/smidr/build", "/home/me/b")).findings[0]
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != of(task("a.c:1:1: error: no")).findings[0].fingerprint


def test_the_figures_of_the_run_are_read() -> None:
    summary = of(
        'BB_VERSION           = "2.8.0"\nMACHINE              = "qemux86-64"\n'
        "Sstate summary: Wanted 10 Local 4 Mirrors 1 Missed 5 Current 3 (50% match, 61% complete)\n"
        + task("a.c:1:1: error: yes")
    ).summary
    assert summary.bitbake_version == "2.8.0"
    assert summary.machine == "qemux86-64"
    assert summary.sstate == {"wanted": 10, "local": 4, "mirrors": 1, "missed": 5, "current": 3}
    assert summary.succeeded is False
    assert summary.tasks_attempted == 40
    assert summary.failed_tasks == (f"{RECIPE}:do_compile",)


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="symbolic"):
        diagnose(tmp_path / "link")


def test_the_json_is_what_the_findings_say() -> None:
    raw = json.loads(of(task("a.c:1:1: error: yes")).to_json())
    assert raw["findings"][0]["category"] == "compile"
    assert raw["summary"]["tasks_attempted"] == 40
