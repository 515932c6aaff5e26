"""Compilers, linkers, make and its kin: what they print when they stop."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

_SOURCE: Final = r"(?P<file>(?:\.{0,2}/)?[\w.+@%~<>/,=-][^\s:()'\"]{0,400}?):(?P<line>\d{1,7})"
_START: Final = r"^\s{0,8}(?:\[[\d/ %]{1,16}\] )?"

_SECTION: Final = (
    r"(?:(?<![^\s:])(?P<file>[^\s:()]{1,400}\.(?:c|cc|cpp|cxx|C|c\+\+|s|S|m|f|f90|rs)):"
    r"\(\.[\w.$*+-]{1,200}\): )?"
)
"""The source that the linker names with a section instead of a line."""

RULES: Final = (
    Rule(
        "compiler-missing-header",
        Category.COMPILE,
        rf"{_START}{_SOURCE}(?::(?P<column>\d{{1,5}}))?: (?:fatal )?error: '?(?P<missing>[^\s':]{{1,200}})'?"
        r"(?:: No such file or directory| file not found)",
        ("No such file", "file not found"),
        Weight.CAUSE + 6,
        hint="The header {missing} is not in the recipe's sysroot: add the recipe that installs it "
        "to DEPENDS, or turn the feature off in PACKAGECONFIG.",
        by_task=True,
    ),
    Rule(
        "compiler-ice",
        Category.COMPILE,
        rf"(?:{_START}{_SOURCE}(?::(?P<column>\d{{1,5}}))?: )?internal compiler error: (?P<what>.{{1,300}})",
        ("internal compiler error",),
        Weight.CAUSE + 6,
        hint="The compiler itself crashed: try a lower optimisation for this recipe or another "
        "compiler version; if it does not repeat, look for memory trouble on the host.",
    ),
    Rule(
        "compiler-error",
        Category.COMPILE,
        rf"{_START}(?!\S{{1,300}}\.(?:ac|am|m4):){_SOURCE}(?::(?P<column>\d{{1,5}}))?:\s?(?:\d{{1,5}}: )?(?:fatal )?[eE]rror(?: C?\d{{1,6}})?: (?P<what>.{{1,400}})",
        ("rror: ", "rror "),
        Weight.CAUSE + 5,
        hint="The first compiler error is the one to mend; later ones often follow from it.",
        by_task=True,
    ),
    Rule(
        "compiler-werror",
        Category.COMPILE,
        rf"{_START}{_SOURCE}(?::(?P<column>\d{{1,5}}))?: sorry, unimplemented: (?P<what>.{{1,300}})",
        ("sorry, unimplemented",),
        Weight.CAUSE + 6,
        hint="The compiler does not support this for the target it is set to: check the tune and "
        "the toolchain.",
        by_task=True,
    ),
    Rule(
        "assembler-error",
        Category.COMPILE,
        r"^(?P<file>\{standard input\}|[^\s:]{1,400}):(?P<line>\d{1,7})?:? Error: (?P<what>.{1,300})",
        (": Error: ",),
        Weight.CAUSE + 1,
        hint="The assembler refuses this: check the CPU the compiler is set to (TUNE_FEATURES); "
        "after a killed compiler these messages mean nothing.",
    ),
    Rule(
        "linker-undefined-at",
        Category.LINK,
        rf"{_START}{_SOURCE}:(?: error:)? undefined (?:reference|symbol)s? ?(?:to|:)? ?(?P<symbol>.{{0,300}})",
        ("undefined reference", "undefined symbol"),
        Weight.CAUSE + 7,
        hint="{symbol} is in none of the linked libraries: a library is missing from DEPENDS or "
        "from the link line, or was built without that function.",
    ),
    Rule(
        "linker-undefined",
        Category.LINK,
        rf"{_SECTION}undefined (?:reference|symbol)s? ?(?:to|:)? ?[`'\"]?(?P<symbol>[^'`\"\n]{{0,300}})",
        ("undefined reference", "undefined symbol", "ndefined symbols"),
        Weight.CAUSE + 4,
        hint="{symbol} is in none of the linked libraries: a library is missing from DEPENDS or "
        "from the link line, or was built without that function.",
        where=Where.OUTPUT,
    ),
    Rule(
        "linker-cannot-find",
        Category.LINK,
        r"(?:ld(?:\.\w{1,8})?|collect2|linker|lld)(?:\.\w{1,8})?: (?:error: )?(?:cannot find|unable to find library|"
        r"library not found for) (?P<missing>\S{1,200})",
        ("cannot find", "unable to find library", "library not found"),
        Weight.CAUSE + 4,
        hint="The linker has no {missing}: add the recipe that provides it to DEPENDS, or, when "
        "the recipe builds it itself, look for a race (PARALLEL_MAKE).",
    ),
    Rule(
        "linker-error",
        Category.LINK,
        r"(?:^|[/\s])(?:[\w.+-]{0,80}-)?(?:ld(?:\.(?:bfd|gold|lld|mold))?|ld\.lld|mold|lld-link): "
        r"(?:fatal )?(?:error: |.{0,300}(?:relocation|relocations|not found|multiple definition|incompatible|"
        r"overflowed|will not fit|undefined|file not recognized|cannot|failed to|bad value|truncated|"
        r"DSO missing|no such|unrecognized|discarded|not supported|undefined version|wrong format|mismatch))"
        r"(?P<what>.{0,300})",
        ("ld: ", "ld.", "mold: ", "lld"),
        Weight.CAUSE + 3,
        hint="The linker says why; check the libraries in DEPENDS and LDFLAGS.",
    ),
    Rule(
        "linker-multiple-definition",
        Category.LINK,
        rf"{_SECTION}multiple definition of [`'](?P<symbol>[^'`]{{1,200}})",
        ("multiple definition of",),
        Weight.CAUSE + 4,
        hint="{symbol} is defined in two object files; with gcc 10 and newer add extern to the "
        "declaration in the header (or -fcommon as a stopgap).",
        where=Where.OUTPUT,
    ),
    Rule(
        "linker-section-overflow",
        Category.LINK,
        r"(?:region [`'].{1,80}' overflowed by|section [`'].{1,80}' will not fit in region|"
        r"relocation truncated to fit|DSO missing from command line|file not recognized|"
        r"final link failed|recompile with -fPIC|recompile with -fPIE|un(?:expected|known) relocation type)",
        (
            "overflowed by",
            "will not fit",
            "truncated to fit",
            "DSO missing",
            "not recognized",
            "final link failed",
            "recompile with",
            "relocation type",
        ),
        Weight.CAUSE + 2,
        hint="The linker says why; check sizes, -fPIC and the libraries on the link line.",
        where=Where.OUTPUT,
    ),
    Rule(
        "linker-exit",
        Category.LINK,
        r"(?:collect2: (?:fatal )?error: ld (?:returned|terminated)|linker command failed|"
        r"error: linking with `.{1,200}` failed)",
        ("collect2: ", "linker command failed", "linking with"),
        Weight.SIGN,
        hint="The linker failed; its messages are above this line.",
    ),
    Rule(
        "make-no-rule",
        Category.COMPILE,
        r"\*\*\* No rule to make target [`'](?P<missing>[^'`]{1,300})'(?:, needed by [`'](?P<needed>[^'`]{1,300})')?",
        ("No rule to make target",),
        Weight.LIKELY + 5,
        hint="A file that the Makefile needs is neither there nor made: a wrong path, a missing "
        "generated file, or a race that a retry would hide.",
        by_task=True,
    ),
    Rule(
        "make-message",
        Category.COMPILE,
        r"(?P<file>[^\s:]{1,300}):(?P<line>\d{1,7}): \*\*\* (?!\[)(?P<what>.{1,300})",
        (": *** ",),
        Weight.CAUSE + 1,
        hint="The Makefile stops on purpose or can't be read; the line says why.",
        by_task=True,
    ),
    Rule(
        "make-stop",
        Category.COMPILE,
        r"make(?:\[\d{1,3}\])?: \*\*\* (?!\[|Waiting|Deleting|wait)(?P<what>.{1,300})",
        ("*** ",),
        Weight.LIKELY,
        hint="make says why it stops.",
        by_task=True,
    ),
    Rule(
        "make-echo",
        Category.COMPILE,
        r"(?:(?:g|gnu)?make(?:\[\d{1,3}\])?: \*\*\* \[|ninja: build stopped|ninja: error: (?:rebuilding|.{0,80}subcommand)|"
        r"oe_runmake failed|scons: building terminated|error: recipe for target|FAILED: \S|"
        r"Error: Process completed)",
        ("*** [", "ninja: ", "oe_runmake failed", "scons: ", "FAILED: "),
        Weight.ECHO,
        hint="The first error is above this line, in the task's log.",
        by_task=True,
        cause_visible=False,
    ),
    Rule(
        "ninja-error",
        Category.COMPILE,
        r"ninja: (?:fatal|error): (?:(?P<file>[^\s:]{1,300}):(?P<line>\d{1,7}): )?(?P<what>.{1,300})",
        ("ninja: error", "ninja: fatal"),
        Weight.CAUSE + 1,
        hint="ninja can't use what the configure step wrote, or a file is missing.",
        by_task=True,
    ),
    Rule(
        "shell-command-not-found",
        Category.COMPILE,
        r"(?:^|[\s:'\"])(?P<missing>[\w./+-]{1,200}): (?:[Cc]ommand )?not found$|exec: \"?(?P<exe>[^\":]{1,200})\"?: executable file not found|"
        r"(?:^|\s)(?P<exe2>[\w./+-]{1,200}): No such file or directory$",
        ("not found", ": No such file or directory"),
        Weight.LIKELY + 2,
        hint="A program that the task calls is missing: add its -native recipe to DEPENDS, or the "
        "name to HOSTTOOLS.",
        where=Where.OUTPUT,
        by_task=True,
    ),
    Rule(
        "shell-argument-list",
        Category.OTHER,
        r"(?:^(?P<file>/[^\s:]{1,400}): line (?P<line>\d{1,6}): .{0,400})?Argument list too long",
        ("Argument list too long",),
        Weight.DETAIL,
        hint="A command line or the environment is too long: shorten the build path, clean the "
        "environment (PATH) that BitBake inherits.",
        by_task=True,
    ),
    Rule(
        "file-command-failed",
        Category.INSTALL,
        r"^\s{0,4}(?:output: |stderr: |[^\s:]{0,200}/)?(?P<tool>cp|mv|install|rm|ln|mkdir|chmod|chown|cat|touch|tar|sed|find|cd|rsync|rmdir|grep|strip|cpio|chrpath|unzip|ls|head|dd|gzip|objcopy|readelf)(?::| \() ?"
        r"(?P<what>.{0,40}(?:cannot|can't|failed|No such file|not a directory|missing|error|invalid|omitting|Permission|is not|File exists|unrecognized|same file|Operation not).{0,400})",
        (
            "cannot",
            "can't",
            "failed",
            "No such file",
            "not a directory",
            "missing",
            "rror",
            "invalid",
            "ermission",
            "is not",
            "exists",
            "unrecognized",
            "same file",
            "omitting",
            "ot permitted",
        ),
        Weight.LIKELY + 4,
        hint="{tool} fails: a path in the task is wrong or what should be there was not built.",
        where=Where.OUTPUT,
        by_task=True,
    ),
    Rule(
        "shell-error",
        Category.COMPILE,
        r"^(?P<file>(?!/bin/)/[^\s:]{1,400}|(?!/bin/)[^\s:]{1,400}(?=: line )): (?:line )?(?P<line>\d{1,6}): (?P<what>.{3,300})",
        (": line ", "not found", "No such", "rror", "ermission", "denied", "cannot", "can't"),
        Weight.LIKELY + 3,
        hint="A shell script stops here.",
        where=Where.OUTPUT,
        by_task=True,
    ),
    Rule(
        "tool-fatal",
        Category.COMPILE,
        r"^(?:[\w./+-]{1,120}: )?(?:FATAL|Fatal|fatal|LLVM ERROR)(?: error)?: (?P<what>.{3,400})",
        ("atal", "FATAL", "LLVM ERROR"),
        Weight.LIKELY + 3,
        hint="The tool says why it stops.",
        where=Where.OUTPUT,
        by_task=True,
    ),
    Rule(
        "tool-error",
        Category.COMPILE,
        r"^\s{0,8}(?:Subprocess output: ?)?(?:[\w./+\[\]-]{1,120}: )?(?:\*\*\* )?(?:ERROR|Error|error)(?: ?\(\d{1,5}\))?: (?P<what>.{3,400})",
        ("rror: ", "ERROR: ", "rror ("),
        Weight.LIKELY,
        hint="The tool says why it stops.",
        where=Where.OUTPUT,
        by_task=True,
        is_generic=True,
    ),
    Rule(
        "tool-error-inside",
        Category.COMPILE,
        r"(?:^|\s)(?:ERROR|Error|error):? (?P<what>.{3,400})|Segmentation fault|core dumped|Illegal instruction|Bus error",
        ("rror", "ERROR", "egmentation", "dumped", "llegal instr"),
        Weight.SIGN,
        hint="The tool says why it stops.",
        where=Where.OUTPUT,
        by_task=True,
        is_generic=True,
    ),
    Rule(
        "tool-weak-sign",
        Category.COMPILE,
        r"(?:annot |ould not |nable to |not found|No such file|does not exist|ermission denied|not permitted|not supported)",
        (
            "annot ",
            "ould not ",
            "nable to ",
            "not found",
            "No such file",
            "not exist",
            "ermission denied",
            "ot permitted",
            "not supported",
        ),
        Weight.SIGN - 5,
        hint="The tool says why it stops.",
        where=Where.OUTPUT,
        by_task=True,
        is_generic=True,
    ),
)
