"""quilt, patch and git apply."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight

__all__ = ["RULES"]

RULES: Final = (
    Rule(
        "patch-source-dir",
        Category.OTHER,
        r"the directory .{1,600}pointed to by the S variable doesn't exist",
        ("by the S variable",),
        Weight.SIGN,
        hint="S does not point to where the source was unpacked: set S in the recipe; patches and "
        "configure fail because of it.",
        warning=True,
    ),
    Rule(
        "patch-reverse",
        Category.PATCH,
        r"(?:Patch (?P<file>\S{1,300}) can be reverse-applied|Reversed \(or previously applied\) patch detected)",
        ("reverse-applied", "previously applied"),
        Weight.DETAIL + 1,
        hint="The change is already in the source: drop the patch from SRC_URI.",
    ),
    Rule(
        "patch-hunk",
        Category.PATCH,
        r"Hunk #(?P<hunk>\d{1,4}) FAILED at (?P<line_at>\d{1,7})",
        ("FAILED at",),
        Weight.CAUSE + 4,
        hint="Hunk {hunk} no longer fits the source: refresh the patch (devtool modify, then "
        "devtool finish).",
    ),
    Rule(
        "patch-no-file",
        Category.PATCH,
        r"can't find file to patch at input line \d{1,7}",
        ("find file to patch",),
        Weight.CAUSE + 4,
        hint="The file that the patch changes is not there: wrong S, wrong strip level "
        "(striplevel= in SRC_URI), or it was moved upstream.",
    ),
    Rule(
        "patch-damaged",
        Category.PATCH,
        r"(?:\*\*\*\* malformed patch at line|\*\*\*\* Only garbage was found|corrupt patch at line|"
        r"patch unexpectedly ends in middle|patch fragment without header|error: patch failed: |"
        r"error: .{1,300}: (?:patch does not apply|does not exist in index|already exists in)|"
        r"No such file or directory: .{1,300}\.patch)",
        (
            "malformed patch",
            "garbage",
            "corrupt patch",
            "fragment without",
            "patch failed:",
            "does not apply",
            "in index",
            "already exists in",
            ".patch",
        ),
        Weight.CAUSE + 3,
        hint="The patch is damaged or does not fit the source: make it anew against this version.",
    ),
    Rule(
        "patch-does-not-apply",
        Category.PATCH,
        r"Patch (?P<file>\S{1,300}) does not apply",
        ("does not apply",),
        Weight.CAUSE,
        hint="Refresh {file} against this version of the source, or drop it if upstream has it.",
    ),
    Rule(
        "patch-fuzz",
        Category.PACKAGE_QA,
        r"(?:Fuzz detected|QA Issue: Patch log indicates that patches do not apply cleanly)",
        ("Fuzz detected", "do not apply cleanly"),
        Weight.CAUSE,
        hint="A patch applies only with fuzz: refresh it (devtool modify; devtool finish --force-patch-refresh).",
        warning=True,
    ),
    Rule(
        "patch-missing-upstream-status",
        Category.PACKAGE_QA,
        r"(?:Missing Upstream-Status in patch|Malformed Upstream-Status in patch)",
        ("Upstream-Status",),
        Weight.CAUSE,
        hint="Add a line such as `Upstream-Status: Pending` to the patch's header.",
        warning=True,
    ),
    Rule(
        "patch-command",
        Category.PATCH,
        r"(?:Applying patch '?(?P<file>[^'\s]{1,300})'? (?:on target directory|failed)|"
        r"Command Error: (?:'quilt|exit status))(?P<what>.{0,300})",
        ("Applying patch", "Command Error"),
        Weight.SIGN,
        hint="The patch does not apply: refresh it against this version of the source.",
        tasks=("do_patch", "do_kernel", "do_devshell"),
    ),
)
