from __future__ import annotations

import io
from pathlib import Path

import pytest

from smidr_ci.diagnosis.engine import diagnose
from smidr_ci.diagnosis.model import Category, Diagnosis, DiagnosisContext, LayerMount

RECIPE = "/smidr/layers/demo/recipes/demo/demo_1.0.bb"
OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def context(tmp_path: Path) -> DiagnosisContext:
    folder = tmp_path / "tree" / "recipes" / "demo"
    (folder / "files").mkdir(parents=True)
    (folder / "demo_1.0.bb").write_text(
        'SUMMARY = "zed"\nrequire demo.inc\n'
        f'SRC_URI[sha256sum] = "{OLD}"\n'
        'DEPENDS = "one \\\n    two zed \\\n"\n'
    )
    (folder / "files" / "fix.patch").write_text("x")
    mount = LayerMount("/smidr/layers/demo", "demo", tree=str(tmp_path / "tree"))
    return DiagnosisContext(layers=(mount,))


def of(text: str, context: DiagnosisContext) -> Diagnosis:
    return diagnose(io.BytesIO(text.encode()), context=context)


def test_a_missing_provider_points_to_the_line_that_asks_for_it(context: DiagnosisContext) -> None:
    (finding,) = of(
        "ERROR: Nothing PROVIDES 'zed' (but /smidr/layers/demo/recipes/demo/demo_1.0.bb DEPENDS on "
        "or otherwise requires it)\n",
        context,
    ).findings
    assert (finding.repo_path, finding.line) == ("recipes/demo/demo_1.0.bb", 5)


def test_a_checksum_points_to_the_old_value_and_proposes_the_new(context: DiagnosisContext) -> None:
    (finding,) = of(
        "ERROR: demo-1.0-r0 do_fetch: Bitbake Fetcher Error: ChecksumError('Checksum mismatch!\\n"
        f"File: \\'/d/a.tar\\' has sha256 checksum \\'{NEW}\\' when \\'{OLD}\\' was expected')\n"
        f"ERROR: Task ({RECIPE}:do_fetch) failed with exit code '1'\n",
        context,
    ).findings
    assert finding.category is Category.CHECKSUM
    assert (finding.repo_path, finding.line) == ("recipes/demo/demo_1.0.bb", 3)
    assert NEW in finding.hint


def test_a_patch_that_fails_is_the_file_to_open(context: DiagnosisContext) -> None:
    (finding,) = of(
        "ERROR: demo-1.0-r0 do_patch: Applying patch 'fix.patch' on target directory '/w'\n"
        "Hunk #1 FAILED at 3.\n"
        f"ERROR: Task ({RECIPE}:do_patch) failed with exit code '1'\n",
        context,
    ).findings
    assert finding.repo_path == "recipes/demo/files/fix.patch"


def test_a_symlink_out_of_the_tree_is_not_read(context: DiagnosisContext, tmp_path: Path) -> None:
    recipe = tmp_path / "tree" / "recipes" / "demo" / "demo_1.0.bb"
    (tmp_path / "secret").write_text('DEPENDS = "zed"\n')
    recipe.unlink()
    recipe.symlink_to(tmp_path / "secret")
    (finding,) = of(
        "ERROR: Nothing PROVIDES 'zed' (but /smidr/layers/demo/recipes/demo/demo_1.0.bb DEPENDS on "
        "or otherwise requires it)\n",
        context,
    ).findings
    assert finding.line is None


def test_a_kill_for_memory_seen_from_outside_explains_what_it_left_behind() -> None:
    text = (
        "ERROR: demo-1.0-r0 do_compile: oe_runmake failed\n"
        "| {standard input}:9: Error: unknown pseudo-op: `.'\n"
    )
    assert of(text, DiagnosisContext()).findings[0].category is Category.COMPILE
    blamed = of(text, DiagnosisContext(oom_kills=1)).findings[0]
    assert (blamed.category, blamed.recipe) == (Category.OUT_OF_MEMORY, "demo")


def test_a_real_error_is_not_blamed_on_memory() -> None:
    text = "ERROR: demo-1.0-r0 do_compile: oe_runmake failed\n| a.c:1:1: error: no\n"
    assert of(text, DiagnosisContext(oom_kills=1)).findings[0].category is Category.COMPILE


def test_time_limit_and_cancel_are_findings_though_no_log_tells_them() -> None:
    assert of("", DiagnosisContext(timed_out=True)).findings[0].category is Category.TIMEOUT
    assert of("", DiagnosisContext(cancelled=True)).findings[0].category is Category.CANCELLED
