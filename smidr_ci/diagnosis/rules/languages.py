"""Python, Rust, Go, Node: what their build tools print."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

RULES: Final = (
    Rule(
        "rustc-error",
        Category.COMPILE,
        r"^\s{0,4}error(?:\[(?P<code>E\d{4})\]): (?P<what>.{1,400})",
        ("error[",),
        Weight.CAUSE + 5,
        hint="rustc refuses the source; the position is in the lines below.",
    ),
    Rule(
        "cargo-error",
        Category.COMPILE,
        r"^\s{0,4}error: (?!could not compile|build failed|recipe)(?P<what>(?:failed to|no matching package|package `|the lock file|"
        r"unable to|couldn't|process didn't|cargo|rustc|toolchain|failed|invalid|feature|edition|could not find|linker|attempting to make an HTTP request).{1,400})",
        ("error: ",),
        Weight.CAUSE + 2,
        hint="cargo says why: for offline builds all crates must be in SRC_URI and match Cargo.lock.",
        where=Where.OUTPUT,
        by_task=True,
    ),
    Rule(
        "cargo-echo",
        Category.COMPILE,
        r"^\s{0,4}error: (?:could not compile|build failed)|process didn't exit successfully",
        ("could not compile", "build failed", "exit successfully"),
        Weight.ECHO + 5,
        hint="The compiler's own message is above this line.",
        cause_visible=False,
    ),
    Rule(
        "rust-panic",
        Category.COMPILE,
        r"thread '.{1,80}' panicked at (?P<what>.{1,400})",
        ("panicked at",),
        Weight.CAUSE + 1,
        hint="A build script of a crate gave up: it misses a library or tool.",
        by_task=True,
    ),
    Rule(
        "go-compile",
        Category.COMPILE,
        r"^(?P<file>[\w./@+~-]{1,400}\.go):(?P<line>\d{1,7})(?::(?P<column>\d{1,5}))?: (?P<what>.{3,400})",
        (".go:",),
        Weight.CAUSE + 3,
        hint="The Go compiler stops here; for missing modules list them in SRC_URI (go-mods) or vendor them.",
        where=Where.OUTPUT,
    ),
    Rule(
        "go-modules",
        Category.COMPILE,
        r"(?:go: (?!downloading|finding|extracting)(?P<what>.{3,400})|cannot find (?:package|module) .{1,300}|no required module provides package .{1,300}|"
        r"package .{1,200} is not in (?:GOROOT|std)|inconsistent vendoring.{0,200}|no (?:buildable |non-test )?Go (?:source )?files in)",
        (
            "go: ",
            "cannot find",
            "no required module",
            "is not in",
            "inconsistent vendoring",
            "Go files",
            "Go source files",
        ),
        Weight.CAUSE + 2,
        hint="Go can't find a module: vendor it or list it in SRC_URI; tasks have no network.",
        where=Where.OUTPUT,
        tasks=("do_compile", "do_configure", "do_install", "do_unpack", "do_fetch"),
    ),
    Rule(
        "npm",
        Category.COMPILE,
        r"npm (?:ERR!|error) (?!A complete log|code|errno|syscall|path|cwd|gyp|    )(?P<what>.{3,400})",
        ("npm ERR!", "npm error"),
        Weight.CAUSE,
        hint="npm says why; all packages must be in npm-shrinkwrap.json and fetched by npmsw://.",
        by_task=True,
    ),
    Rule(
        "pip-missing-module",
        Category.COMPILE,
        r"(?:ModuleNotFoundError: No module named '(?P<missing>[^']{1,120})'|ImportError: (?P<what>.{1,300})|"
        r"BackendUnavailable: (?P<what2>.{1,300})|ERROR Backend '(?P<missing2>[^']{1,120})' is not available|"
        r"ERROR Missing dependencies:(?P<what3>.{0,300}))",
        (
            "ModuleNotFoundError",
            "ImportError: ",
            "BackendUnavailable",
            "ERROR Backend",
            "Missing dependencies",
        ),
        Weight.CAUSE + 3,
        hint="The Python module {missing} is not in the native sysroot: add python3-...-native to "
        "DEPENDS (or inherit the matching build-backend class).",
        by_task=True,
    ),
    Rule(
        "pip-error",
        Category.COMPILE,
        r"(?:ERROR: (?:Could not find a version that satisfies|No matching distribution found|Could not build wheels|Failed building|Exception:|Cannot unpack|Invalid requirement|Package|.{1,80}is not a supported wheel).{0,300}|"
        r"error: (?:subprocess-exited-with-error|metadata-generation-failed|invalid command|package directory|command '.{1,200}' failed|can't copy|option).{0,300}|"
        r"error in .{1,120} setup command: .{1,300})",
        ("ERROR: ", "error: ", "setup command"),
        Weight.CAUSE - 2,
        hint="Python's build tool says why.",
        where=Where.OUTPUT,
        by_task=True,
    ),
    Rule(
        "python-exception-bitbake",
        Category.PYTHON_EXCEPTION,
        r"^Exception: (?!bb\.process\.ExecutionError|bb\.BBHandledException|(?:bb\.build\.)?FuncFailed|(?:subprocess\.)?CalledProcessError|.{0,300}Traceback \(most recent)(?P<what>.{1,600})",
        ("Exception: ",),
        Weight.CAUSE + 2,
        hint="A Python function of a class or recipe failed; the stack above names file and line.",
    ),
    Rule(
        "python-exception-repr",
        Category.PYTHON_EXCEPTION,
        r"^(?:OS|IO|Permission|FileNotFound|FileExists|IsADirectory|NotADirectory|Key|Value|Type|"
        r"Attribute|Index|Name|UnboundLocal|Runtime|Assertion|Import|ModuleNotFound|BrokenPipe|"
        r"ConnectionReset|ConnectionRefused|Timeout|UnicodeDecode|UnicodeEncode|Recursion)"
        r"Error\(.{0,800}\)$",
        ("Error(",),
        Weight.CAUSE,
        where=Where.MESSAGE,
        hint="Python code of BitBake or of a class failed; the task's log has the traceback.",
    ),
    Rule(
        "python-command-failed",
        Category.PYTHON_EXCEPTION,
        r"^(?:Exception: )?(?:bb\.process\.ExecutionError|(?:subprocess\.)?CalledProcessError|(?:bb\.build\.)?FuncFailed): (?P<what>.{1,600})",
        ("ExecutionError: ", "CalledProcessError: ", "FuncFailed: "),
        Weight.SIGN,
        hint="A command that Python code started failed; what it printed is near this line.",
        by_task=True,
    ),
    Rule(
        "python-exception",
        Category.PYTHON_EXCEPTION,
        r"^(?!bb\.process\.ExecutionError|bb\.BBHandledException|(?:bb\.build\.)?FuncFailed|(?:subprocess\.)?CalledProcessError|.{0,300}Traceback \(most recent)(?P<exception>(?:[a-zA-Z_]\w{0,40}\.){0,5}[A-Z]\w{0,60}(?:Error|Exception|Failure|Timeout|NotDetected|NotFound|Expired|Unavailable|Exit)): (?P<what>.{1,800})",
        (
            "Error: ",
            "Exception: ",
            "Failure: ",
            "Timeout: ",
            "NotDetected: ",
            "NotFound: ",
            "Expired: ",
            "Unavailable: ",
            "Exit: ",
        ),
        Weight.CAUSE,
        hint="Python code failed; the traceback above names file and line.",
    ),
)
