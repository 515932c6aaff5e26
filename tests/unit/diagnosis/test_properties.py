from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from smidr_ci.diagnosis.engine import diagnose
from smidr_ci.reports.formats import FORMATS

_WORDS = [
    "ERROR: ", "WARNING: ", "NOTE: ", "| ", "demo-1.0-r0 ", "do_compile: ", "do_rootfs: ",
    "Logfile of failure stored in: /b/work/x-y/demo/1.0/temp/log.do_compile.1\n",
    "ERROR: Task (/l/demo_1.0.bb:do_compile) failed with exit code '1'\n",
    "ParseError at /l/a.bb:3: ", "Nothing PROVIDES 'x' ", "was skipped: ", "a.c:1:2: error: x",
    "undefined reference to `x'", "\n", "\r", "\r\n", "\x1b[31m", "\xff", " ",
    "2026-01-01T00:00:00Z ",
    "QA Issue: demo: Files/directories were installed but not shipped", "Killed\n", "{", "}", "%s",
    "Summary: 1 task failed:\n", "Traceback (most recent call last):\n", "KeyError: 'x'\n",
    "::error::", "</table>", "<script>", "```", "]]>", "\x00",
]  # fmt: skip

LOG = """\
NOTE: Executing Tasks
ERROR: demo-1.0-r0 do_compile: oe_runmake failed
ERROR: demo-1.0-r0 do_compile: Execution of '/b/tmp/work/x86-linux/demo/1.0-r0/temp/run.do_compile.9' failed with exit code 1
ERROR: Logfile of failure stored in: /b/tmp/work/x86-linux/demo/1.0-r0/temp/log.do_compile.9
Log data follows:
| /b/tmp/work/x86-linux/demo/1.0-r0/git/src/main.c:12:10: fatal error: foo/bar.h: No such file or directory
| make: *** [Makefile:9: src/main.o] Error 1
ERROR: Task (virtual:native:/l/recipes/demo_1.0.bb:do_compile) failed with exit code '1'
ERROR: ParseError at /l/recipes/image.bb:33: Could not inherit file classes/none.bbclass
ERROR: Nothing PROVIDES 'zed' (but /l/recipes/app_2.0.bb DEPENDS on or otherwise requires it)
ERROR: app-2.0-r0 do_populate_lic: QA Issue: app: The LIC_FILES_CHKSUM does not match for file://COPYING;md5=1
"""  # noqa: E501 - as BitBake prints it
RECIPES = {"demo", "demo-native", "image", "app", None}
FILES = {
    "/b/tmp/work/x86-linux/demo/1.0-r0/git/src/main.c", "/l/recipes/demo_1.0.bb",
    "/l/recipes/image.bb", "/l/recipes/app_2.0.bb", "COPYING", None,
}  # fmt: skip


@given(st.binary(max_size=2000))
@settings(deadline=None)
def test_any_bytes_give_findings_or_none_and_every_report(raw: bytes) -> None:
    diagnosis = diagnose(io.BytesIO(raw))
    for render in FORMATS.values():
        render(diagnosis).encode()


@given(st.lists(st.sampled_from(_WORDS), max_size=40).map("".join))
@settings(deadline=None, max_examples=300)
def test_any_jumble_of_what_bitbake_prints_is_read(text: str) -> None:
    diagnosis = diagnose(io.BytesIO(text.encode("latin-1")))
    for render in FORMATS.values():
        render(diagnosis).encode()


def test_cutting_a_log_anywhere_never_gives_a_wrong_file_or_recipe() -> None:
    raw = LOG.encode()
    for length in range(len(raw)):
        for finding in diagnose(io.BytesIO(raw[:length])).findings:
            assert finding.recipe in RECIPES, (length, finding)
            assert finding.file in FILES, (length, finding)
            assert finding.line in {None, 12, 33}, (length, finding)
