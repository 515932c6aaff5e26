"""What BitBake itself refuses: settings, versions, task graphs, multiconfig, its own code."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]


def _refusal(
    name: str,
    category: Category,
    pattern: str,
    needles: tuple[str, ...],
    hint: str,
    weight: int = Weight.CAUSE,
) -> Rule:
    return Rule(
        name, category, pattern, needles, weight, hint=hint, stands_alone=True, where=Where.MESSAGE
    )


RULES: Final = (
    _refusal(
        "core-commented-multiline",
        Category.PARSE_ERROR,
        r"There is a (?:confusing multiline,? partially commented expression|comment)"
        r"(?: starting)? on line (?P<line>\d{1,7}) of file (?P<file>[^\s:(]{1,500})",
        ("on line ",),
        "A comment stands in the middle of a value that goes over several lines: move it out.",
        Weight.DETAIL,
    ),
    _refusal(
        "core-stray-metadata",
        Category.PARSE_ERROR,
        r"(?:The classname \S{1,200} contains a dash|Overrides could not be expanded into a stable|"
        r"Configuration has been re-parsed over|BBFILES_DYNAMIC entries must be|"
        r"Exception during parse: |"
        r"Invalid value for '\w{1,20}' parameter|Undefined event handler function|"
        r"T variable not set|The following variable\(s\) were not set|"
        r"(?:Error parsing|Invalid) LAYER(?:DEPENDS|RECOMMENDS))",
        (
            "classname",
            "verrides",
            "re-parsed",
            "BBFILES_DYNAMIC",
            "arse",
            "nvalid",
            "event handler",
            "not set",
        ),
        "BitBake can't use this piece of metadata; the line names it.",
    ),
    _refusal(
        "core-shell-code",
        Category.PARSE_ERROR,
        r"Error during parse shell code",
        ("parse shell code",),
        "The shell code of a task or function of this recipe can't be parsed; the lines below "
        "are its last.",
        Weight.SIGN,
    ),
    Rule(
        "core-shell-syntax",
        Category.PARSE_ERROR,
        r"^(?:bb\.pysh\.)?(?:sherrors\.)?ShellSyntaxError: (?P<what>.{1,300})",
        ("ShellSyntaxError",),
        Weight.DETAIL,
        hint="BitBake can't parse the shell code of a task of this recipe at this word: look for "
        "an unfinished for, if, case or quote before it.",
        stands_alone=True,
    ),
    _refusal(
        "core-fragment",
        Category.MISSING_CLASS,
        r"Could not find fragment (?P<missing>\S{1,200}) in enabled layers",
        ("Could not find fragment",),
        "OE_FRAGMENTS names {missing}, which no layer has.",
    ),
    _refusal(
        "core-required-version",
        Category.MISSING_PROVIDER,
        r"(?:required version (?P<version_needed>\S{1,80}) of (?P<missing>\S{1,160}) not available|"
        r"REQUIRED_VERSION of package (?P<missing2>\S{1,160}) not available|"
        r"no eligible providers for (?P<missing3>\S{1,160})|"
        r"recipe virtual provider (?P<missing4>\S{1,160}) not set|is in ASSUME_PROVIDED|"
        r"Unable to find any recipe file matching)",
        ("not available", "no eligible", "virtual provider", "ASSUME_PROVIDED", "any recipe file"),
        "No recipe of the configured layers fits: check the name and the preferred version.",
    ),
    _refusal(
        "core-conflicting-preferences",
        Category.MULTIPLE_PROVIDERS,
        r"resulted in conflicting PREFERRED_PROVIDER entries",
        ("conflicting PREFERRED_PROVIDER",),
        "Two PREFERRED_PROVIDER settings exclude each other: keep one.",
    ),
    _refusal(
        "core-build-directory",
        Category.SANITY,
        r"(?:Unable to find conf/bblayers\.conf or conf/bitbake\.conf|"
        r"The bblayers\.conf file doesn't contain any BBLAYERS|BBPATH is unset|"
        r"/dev/s[h]m does not exist or is not writable|"
        r"[Pp]ython [\d.]{1,8} or later is required for this version of bitbake|"
        r"Please ensure CACHE is set|The path of the cache file is too long|"
        r"Invalid BB_\w{1,40} |[Ss]hell environment variable \S{1,80} has been renamed|"
        r"Variable \S{1,80} from the shell environment has been renamed)",
        (
            "bblayers.conf",
            "BBPATH",
            "is not writable",
            "or later is required",
            "CACHE",
            "cache file",
            "Invalid BB_",
            "has been renamed",
        ),
        "BitBake can't start in this directory or environment: do what the line asks.",
    ),
    _refusal(
        "core-python-version",
        Category.SANITY,
        r"Sorry, python [\d.]{1,8} or later is required",
        ("or later is required",),
        "The builder image's Python is too old for this release of BitBake.",
    ),
    _refusal(
        "core-too-old-metadata",
        Category.LAYER_COMPAT,
        r"(?:Siggen from metadata \(OE-Core\?\) is too old|No core layer found to work with layer)",
        ("is too old", "No core layer found"),
        "BitBake and OE-Core come from different releases: use one branch for all.",
        Weight.ROOT,
    ),
    _refusal(
        "core-hash-changed",
        Category.TASKHASH,
        r"(?:Basehash mismatch |Bitbake's cached basehash does not match|"
        r"marked as completed but now needing to rerun|not in unihash cache|is not in taskhash)",
        ("asehash", "needing to rerun", "unihash", "taskhash"),
        "The hash of a task changed between two parses: look for times, random values or the "
        "environment in its variables.",
    ),
    _refusal(
        "core-server",
        Category.SERVER,
        r"(?:Unable to use hash equivalence server|Failed to (?:start|connect to) .{0,40}server|Unable to start PR [Ss]erver|"
        r"PRservice \S{1,200} not available|"
        r"Idle thread terminated|process \(\S{1,20}\) exited unexpectedly|Gave up; Too many tries|"
        r"OEEquivHash requires BB_HASHSERVE|Undefined/incorrect PRSERV_HOST|"
        r"Only one copy of bitbake should be run against a build directory|"
        r"Making connection failed to remote PR|Unable to (?:get UI Handler|set the cooker))",
        (
            "hash equivalence",
            "server",
            "PR ",
            "PRservice",
            "Idle thread",
            "unexpectedly",
            "Gave up",
            "OEEquivHash",
            "PRSERV_HOST",
            "Only one copy",
            "UI Handler",
            "the cooker",
        ),
        "One of BitBake's servers did not start or went away: see bitbake-cookerdaemon.log in the "
        "build directory.",
        Weight.CAUSE + 2,
    ),
    _refusal(
        "core-task-graph",
        Category.OTHER,
        r"(?:mcdepends on non-existent task|[Mm]ulticonfig (?:dependency |name |conflict|named )|"
        r"No multiconfig named|Unexpected multiconfig|Task \S{1,300} never buildable|"
        r"No such task: |Circular task dependencies)",
        ("mcdepends", "ulticonfig", "never buildable", "No such task", "Circular task"),
        "The task graph can't be built: the line names the task or multiconfig.",
    ),
    _refusal(
        "core-setscene",
        Category.SSTATE,
        r"(?:Scenequeue had deferred entries|Setscene [Tt]ask \S{1,300} (?:in both|was never)|"
        r"[Ss]state (?:found|is only supported|variables|code|manifest)|SState: cannot|"
        r"The sstate manifest for task|due to absolute path symlinks|Unable to reduce sstate name)",
        ("Scenequeue", "Setscene ", "state ", "SState", "absolute path symlinks"),
        "BitBake's bookkeeping of shared state is at odds: start with a fresh TMPDIR.",
    ),
)
