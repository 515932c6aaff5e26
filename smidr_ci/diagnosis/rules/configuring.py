"""autoconf, CMake, Meson, pkg-config, Kconfig and friends."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

RULES: Final = (
    Rule(
        "autoconf-error",
        Category.CONFIGURE,
        r"(?:configure(?::\d{1,7})?|config\.status): error: (?!\S{1,300}configure failed for |in [`'])(?P<what>.{2,400})",
        ("configure", "config.status"),
        Weight.CAUSE + 5,
        hint="configure misses something: add the recipe that provides it to DEPENDS, or switch "
        "the option off in PACKAGECONFIG or EXTRA_OECONF. config.log has the failing test.",
    ),
    Rule(
        "autoconf-nested",
        Category.CONFIGURE,
        r"configure: error: \S{1,300}configure failed for ",
        ("failed for ",),
        Weight.ECHO + 5,
        hint="A configure script in a subdirectory failed; its own message is above.",
    ),
    Rule(
        "autotools-macro",
        Category.CONFIGURE,
        r"(?:^|\s)(?P<file>[\w./+-]{1,300}\.(?:ac|in|am|m4)):(?P<line>\d{1,7}): (?:error|warning: macro|required file|.{0,80}possibly undefined macro|.{0,80}is not|.{0,60}not found)(?P<what>.{0,300})",
        ("error", "undefined macro", "required file", "is not", "not found"),
        Weight.CAUSE + 5,
        hint="autoreconf can't process the file: a macro package is missing (DEPENDS: "
        "autoconf-archive-native, gettext-native, pkgconfig-native ...) or the file is too old.",
    ),
    Rule(
        "autotools-failed",
        Category.CONFIGURE,
        r"(?:autoreconf|aclocal|automake|autoheader|autom4te|libtoolize|autopoint|intltoolize|gtkdocize): (?:error: )?(?P<what>.{0,200}(?:failed|error|cannot|not found|missing|No such).{0,200})",
        (
            "autoreconf",
            "aclocal",
            "automake",
            "autoheader",
            "autom4te",
            "libtoolize",
            "autopoint",
            "intltoolize",
            "gtkdocize",
        ),
        Weight.LIKELY,
        hint="autoreconf failed; the first error is above.",
    ),
    Rule(
        "pkg-config-missing",
        Category.CONFIGURE,
        r"(?:Package '?(?P<missing>[\w.+-]{1,120})'?,? (?:required by '(?P<asker>[^']{1,120})', not found|was not found in the pkg-config search path)|No package '(?P<missing2>[^']{1,120})' found)",
        ("pkg-config search path", "No package '", "required by '"),
        Weight.CAUSE + 2,
        hint="pkg-config does not find {missing}{missing2}: add its recipe to DEPENDS.",
        by_task=True,
    ),
    Rule(
        "configure-requirements",
        Category.CONFIGURE,
        r"Package requirements \((?P<missing>.{1,200})\) were not met",
        ("were not met",),
        Weight.CAUSE + 5,
        hint="pkg-config does not find {missing}: add the recipe to DEPENDS, or a newer version of it.",
    ),
    Rule(
        "meson-error",
        Category.CONFIGURE,
        r"(?P<file>[^\s:]{0,400}meson(?:\.build|_options\.txt|\.options)):(?P<line>\d{1,7}):(?P<column>\d{1,5}): ERROR: (?P<what>.{1,400})",
        ("ERROR: ",),
        Weight.CAUSE + 5,
        hint="Meson stops at this line: add the missing dependency to DEPENDS or switch the option "
        "off in PACKAGECONFIG or EXTRA_OEMESON.",
    ),
    Rule(
        "meson-error-plain",
        Category.CONFIGURE,
        r"^ERROR: (?!meson failed|oe_runmake)(?P<what>(?:Dependency \S|Dependency lookup|Program |Unknown options?:|Problem encountered|Pkg-config |Subproject |Compiler |Value \S|Executables created|Feature |Neither a subproject|Unhandled python|Could not (?:execute|get define|detect|invoke sanity|find \S+ linker|determine)).{1,300})",
        ("ERROR: ",),
        Weight.CAUSE + 3,
        hint="Meson says what is missing: add it to DEPENDS or switch the option off.",
        where=Where.OUTPUT,
    ),
    Rule(
        "meson-failed",
        Category.CONFIGURE,
        r"(?:ERROR: )?meson failed$",
        ("meson failed",),
        Weight.ECHO,
        hint="Meson's own message is above this line, details are in meson-log.txt.",
        cause_visible=False,
    ),
    Rule(
        "cmake-error-at",
        Category.CONFIGURE,
        r"CMake Error(?: at (?P<file>[^\s:]{1,400}):(?P<line>\d{1,7}))? \((?P<command>[\w]{1,80})\):",
        ("CMake Error at",),
        Weight.CAUSE + 4,
        next_line=r"^\s{1,3}(?!.{0,300}Traceback \(most|By not providing \"|asked CMake to find|"
        r"(?:\"[^\"]{1,100}\", )?(?:but )?CMake did not find one)\S",
        next_within=40,
        hint="CMake stops here ({command}): add the recipe that brings what it looks for to "
        "DEPENDS, or set the option in EXTRA_OECMAKE.",
    ),
    Rule(
        "cmake-error",
        Category.CONFIGURE,
        r"CMake (?:Fatal )?Error:? (?P<what>.{0,400})",
        ("CMake Error", "CMake Fatal"),
        Weight.CAUSE + 1,
        hint="CMake says why it stops.",
    ),
    Rule(
        "cmake-error-bare",
        Category.CONFIGURE,
        r"CMake Error:?$",
        ("CMake Error",),
        Weight.SIGN + 5,
        next_line=r"(?:error|Error|failed|cannot|could not)",
        next_within=8,
        hint="CMake says why it stops in the lines below.",
    ),
    Rule(
        "cmake-incomplete",
        Category.CONFIGURE,
        r"-- Configuring incomplete, errors occurred",
        ("Configuring incomplete",),
        Weight.ECHO,
        hint="CMake's own message is above this line; see also CMakeError.log.",
        cause_visible=False,
    ),
    Rule(
        "kconfig",
        Category.KERNEL,
        r"(?:(?P<file>[^\s:]{0,300}Kconfig[^\s:]{0,80}):(?P<line>\d{1,7}): (?:error: )?(?P<what>.{1,300})|Can't find default configuration \"(?P<missing>[^\"]{1,200})\"|\*\*\* Can't find default configuration.*)",
        ("Kconfig", "Can't find default configuration"),
        Weight.CAUSE + 5,
        hint="The kernel configuration can't be made: check KBUILD_DEFCONFIG, the defconfig's place "
        "and the Kconfig file.",
    ),
    Rule(
        "qmake-error",
        Category.CONFIGURE,
        r"(?:Project ERROR: (?!GN build)|Project MESSAGE: .{0,40}ERROR|ERROR: Enabling/Disabling unknown feature|ERROR: The .{1,80} functionality tests failed|ERROR: .{0,80}not supported by your)(?P<what>.{1,300})",
        ("Project ERROR", "Project MESSAGE", "unknown feature", "tests failed", "by your"),
        Weight.CAUSE + 4,
        hint="qmake misses a module or a library: add the Qt recipe to DEPENDS.",
        where=Where.OUTPUT,
    ),
)
