"""Packaging, QA (insane.bbclass), licences, shared areas."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

RULES: Final = (
    Rule(
        "license-error",
        Category.LICENSE,
        r"Licensing Error: ",
        ("Licensing Error",),
        Weight.ECHO,
        hint="The line before says what is wrong with LIC_FILES_CHKSUM.",
    ),
    Rule(
        "license-file-gone",
        Category.LICENSE,
        r"(?:^(?:QA Issue: )?(?P<recipe>[\w.+-]{1,120}): )?LIC_FILES_CHKSUM points to an invalid file",
        ("points to an invalid file",),
        Weight.DETAIL + 1,
        hint="The licence file moved or is gone: correct its path in LIC_FILES_CHKSUM.",
    ),
    Rule(
        "license-checksum",
        Category.LICENSE,
        r"(?:^(?:QA Issue: )?(?P<recipe>[\w.+-]{1,120}): (?:The )?)?(?<!Licensing Error: )(?:LIC_FILES_CHKSUM (?:does not match|points to an invalid file|contains an invalid URL)|"
        r"md5 data is not matching)(?:(?: for)?:? ?(?:file://)?(?P<file>[\w./<$][^\s;]{0,400}))?",
        ("LIC_FILES_CHKSUM ", "md5 data is not matching"),
        Weight.DETAIL,
        hint="The licence text changed or moved: read what changed, then update LIC_FILES_CHKSUM "
        "(and LICENSE if need be).",
    ),
    Rule(
        "license-other",
        Category.LICENSE,
        r"(?:^(?P<recipe>[\w.+-]{1,120}): )?.{0,120}?(?:LIC_FILES_CHKSUM|LICENSE .{0,100}(?:not set|invalid|unknown)|license-(?:checksum|exists|incompatible|format)|"
        r"incompatible[- ]licen[sc]e|incompatible with license|cannot be installed into the image because it has incompatible|"
        r"Recipe file fetches files .{0,100}licen|No generic license file exists|"
        r"License (?:file )?\S{1,200} (?:not found|does not exist)|Unknown license)",
        ("LIC_FILES_CHKSUM", "icense", "LICENSE"),
        Weight.CAUSE,
        where=Where.MESSAGE,
        hint="Correct LICENSE, LIC_FILES_CHKSUM or INCOMPATIBLE_LICENSE.",
    ),
    Rule(
        "qa-not-shipped",
        Category.PACKAGE_QA,
        r"(?:QA Issue: )?(?P<package>\S{1,160}): Files/directories were installed but not shipped",
        ("installed but not shipped",),
        Weight.DETAIL,
        hint="Add the paths to FILES:${{PN}} (or another package), delete them in do_install, or "
        "inherit the class that packages them.",
        warning=True,
    ),
    Rule(
        "qa-host-path",
        Category.PACKAGE_QA,
        r"This autoconf log indicates errors, it looked at host include",
        ("it looked at host include",),
        Weight.DETAIL,
        hint="configure searched the host's directories: pass the target's paths (config.log has "
        "the test).",
    ),
    Rule(
        "packaging-subprocess",
        Category.PACKAGING,
        r"Fatal errors occurred in subprocesses",
        ("occurred in subprocesses",),
        Weight.LIKELY + 2,
        next_line=r"^Subprocess output:\s?\S",
        next_within=8,
        hint="A tool that packaging runs on files of the recipe failed; the line has its message.",
        by_task=True,
    ),
    Rule(
        "qa-issue",
        Category.PACKAGE_QA,
        r"QA Issue: ?(?P<what>.{0,3000}?)(?: \[(?P<tag>[\w.-]{2,40})\])?$",
        ("QA Issue:",),
        Weight.CAUSE + 5,
        hint="insane.bbclass refuses the package: mend the cause, or, when it is meant to be so, "
        "add the tag to INSANE_SKIP:<package>.",
        warning=True,
    ),
    Rule(
        "qa-fatal",
        Category.PACKAGE_QA,
        r"(?:Fatal QA errors (?:were )?found, failing task|QA run found fatal errors)",
        ("QA errors", "QA run found"),
        Weight.ECHO,
        hint="The QA issues are in the lines above.",
        cause_visible=False,
    ),
    Rule(
        "shlib-providers",
        Category.PACKAGING,
        r"Multiple shlib providers for (?P<what>\S{1,200}): (?P<who>[^(]{1,300})",
        ("shlib providers",),
        Weight.CAUSE + 5,
        hint="Two recipes ship {what}: drop one, or set PRIVATE_LIBS where it is private.",
    ),
    Rule(
        "package-no-files",
        Category.PACKAGING,
        r"(?:(?P<file>\S{1,300}) is listed in PACKAGES multiple times|contains dependency to|"
        r"Package version .{0,200}went backwards|package-specific .{0,80}failed|"
        r"debugedit|objcopy.{0,120}failed|strip.{0,80}failed|rpmbuild.{0,200}failed|"
        r"dpkg-deb: error|error: .{0,200}rpm|Installed \(but unpackaged\) file|File not found: )",
        (
            "multiple times",
            "contains dependency",
            "went backwards",
            "failed",
            "dpkg-deb: error",
            "rpm",
            "unpackaged",
            "File not found: ",
        ),
        Weight.CAUSE,
        needs_task=True,
        tasks=("do_package",),
        hint="The package can't be made; the line says why.",
    ),
    Rule(
        "package-pr-changed",
        Category.PACKAGING,
        r"Recipe (?P<recipe>\S{1,160}) is trying to change (?P<what>\S{1,40}) from",
        ("is trying to change",),
        Weight.CAUSE,
        hint="{what} must not change after parsing: set it outside of functions.",
    ),
    Rule(
        "package-split",
        Category.PACKAGING,
        r"(?:debugedit|objcopy|strip|dpkg-deb|rpmbuild|ipkg-build|opkg-build) (?:command )?.{0,80}failed",
        ("failed",),
        Weight.CAUSE,
        where=Where.MESSAGE,
        hint="A packaging tool fails; its own message follows.",
    ),
    Rule(
        "package-uid",
        Category.PACKAGING,
        r"(?:KeyError: 'getpwuid\(\): uid not found: (?P<uid>\d{1,9})'|getgrgid\(\): gid not found)",
        ("uid not found", "gid not found"),
        Weight.DETAIL,
        hint="A packaged file belongs to an id that the target does not know (often the build "
        "user's): use install or chown root:root in do_install, `cp --no-preserve=ownership`.",
    ),
    Rule(
        "useradd",
        Category.PACKAGING,
        r"(?:(?:user|group)add(?:\.\w{1,20})? (?:command )?did not succeed|(?:Recipe|recipe) \S{1,200},? .{0,80}(?:username|groupname) .{0,120}(?:static|not have a)|"
        r"useradd: (?:ERROR|invalid|user|group|cannot).{0,300}|Failed to .{0,40}(?:user|group)add.{0,200})",
        ("did not succeed", "username", "groupname", "useradd: ", "groupadd"),
        Weight.CAUSE + 2,
        hint="The user or group can't be created in the sysroot: check USERADD_PARAM and the "
        "static id tables.",
    ),
    Rule(
        "shared-area",
        Category.SSTATE,
        r"[Rr]ecipe (?P<recipe>\S{1,160}) is trying to install files into a shared",
        ("into a shared",),
        Weight.DETAIL,
        hint="Two recipes stage the same file (listed below with its owner): let only one provide "
        "it; after a renamed recipe clean the old one (bitbake -c cleansstate OLD).",
    ),
    Rule(
        "already-staged",
        Category.SSTATE,
        r"Package already staged \((?P<manifest>[^)]{1,500})\)",
        ("already staged",),
        Weight.DETAIL,
        hint="A manifest of an earlier build is left over: clean the recipe, or start with a fresh "
        "TMPDIR.",
    ),
    Rule(
        "sstate-file",
        Category.SSTATE,
        r"(?:sstate.{0,300}(?:failed|error|cannot|corrupt|unable)|(?:Failed|Unable) to (?:fetch|unpack).{0,80}sstate|"
        r"cannot find section \S{1,80}|patchelf.{0,300}failed|[Ss]tamp .{0,200}corrupt|"
        r"failed to (?:read|write) sstate|Error validating (?:state|sstate)|signature verification (?:on|failed))",
        ("sstate", "cannot find section", "patchelf", "corrupt", "signature verification"),
        Weight.CAUSE,
        hint="A shared-state object can't be used: set it aside and let the task run.",
        needs_task=True,
        tasks=("setscene", "do_populate_sysroot", "do_package", "do_packagedata"),
    ),
    Rule(
        "taskhash-mismatch",
        Category.TASKHASH,
        r"(?:Taskhash mismatch \S{8,64} vers(?:us|es) \S{8,64}(?: for (?P<task_id>\S{1,500}))?|"
        r"When reparsing (?P<task_id2>\S{1,500}), the basehash value changed from|"
        r"The mismatched hashes were|The metadata is not deterministic)",
        ("Taskhash mismatch", "When reparsing", "mismatched hashes", "not deterministic"),
        Weight.DETAIL,
        hint="The task's hash changes between two parses: a variable holds a time, a random value "
        "or something of the environment. Exclude it with [vardepsexclude] or fix its value; "
        "bitbake -Snone and bitbake-diffsigs show which.",
        stands_alone=True,
    ),
    Rule(
        "pseudo-sigabrt",
        Category.PSEUDO,
        r"died with <Signals\.SIGABRT",
        ("SIGABRT",),
        Weight.CAUSE,
        hint="A program aborted, most often because pseudo stopped it: pseudo.log of the work "
        "directory names the path that does not match.",
    ),
    Rule(
        "pseudo-abort",
        Category.PSEUDO,
        r"(?:path mismatch \[\d{1,9} links?\]|pseudo.{0,80}(?:abort|ABORT|Abort)|"
        r"abort\(\)ing pseudo client|couldn't (?:open|create|allocate).{0,80}pseudo|"
        r"pseudo: .{0,200}(?:failed|error|unknown|mismatch)|inode mismatch|"
        r"The pseudo (?:server|daemon|client)|PSEUDO_\w{1,30} .{0,80}(?:not set|must)|See following link for details on this error)",
        ("path mismatch", "seudo", "inode mismatch", "PSEUDO_"),
        Weight.ROOT,
        hint="Files under pseudo's control were changed outside of it (or pseudo could not start): "
        "clean the recipe; check PSEUDO_IGNORE_PATHS and that nothing else writes there. "
        "pseudo.log of the work directory names the paths.",
    ),
)
