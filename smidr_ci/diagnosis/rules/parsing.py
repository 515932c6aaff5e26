"""Metadata that can't be read: syntax, old override syntax, classes, includes, expansion."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight, Where

__all__ = ["RULES"]

_AT: Final = (
    r"(?:ParseError|SyntaxError|Error)(?: at| in) (?P<file>[^\s:]+)(?::(?P<line>\d{1,7}))?:?"
)

RULES: Final = (
    Rule(
        "parse-could-not-inherit",
        Category.MISSING_CLASS,
        r"(?:ParseError (?:at|in) (?P<file>[^\s:]{1,500}?)(?::(?P<line>\d{1,7}))?: )?"
        r"Could not inherit file (?P<missing>\S{1,300})",
        ("Could not inherit file",),
        Weight.DETAIL,
        hint="No layer in BBLAYERS has {missing}. Add the layer that brings the class, or inherit "
        "it only where that layer is present.",
        stands_alone=True,
    ),
    Rule(
        "parse-inherit-not-found",
        Category.MISSING_CLASS,
        r"ParseError in configuration INHERITs: Could not inherit file (?P<missing>\S{1,300})",
        ("configuration INHERITs",),
        Weight.DETAIL + 1,
        hint="INHERIT or USER_CLASSES names {missing}, which no layer has: drop it from the "
        "configuration or add its layer.",
        stands_alone=True,
    ),
    Rule(
        "parse-could-not-include",
        Category.MISSING_CLASS,
        r"(?:ParseError at (?P<file>[^\s:]{1,500}?)(?::(?P<line>\d{1,7}))?: )?"
        r"Could not (?:include required|find include|include) file (?P<missing>\S{1,300})",
        ("Could not include", "Could not find include"),
        Weight.DETAIL,
        hint="{missing} is in no layer: check the MACHINE, DISTRO or TCLIBC name that leads to it "
        "and whether its layer is in BBLAYERS.",
        stands_alone=True,
    ),
    Rule(
        "parse-unparsed-line",
        Category.PARSE_ERROR,
        r"ParseError at (?P<file>[^\s:]{1,500}):(?P<line>\d{1,7}): unparsed line: (?P<what>.{0,300})",
        ("unparsed line",),
        Weight.DETAIL,
        hint="BitBake can't read this line: look for a missing or typographic quote, a wrong "
        "operator or a stray backslash on it or on the line before.",
        stands_alone=True,
    ),
    Rule(
        "parse-unparsed-lines",
        Category.PARSE_ERROR,
        r"ParseError at (?P<file>[^\s:]{1,500}):(?P<line>\d{1,7}):\s*(?:Unparsed lines|$)",
        ("ParseError at",),
        Weight.DETAIL,
        next_line=r"^\s*Unparsed lines \[|^\S",
        next_within=2,
        hint="A statement is not finished where BitBake expects it: look for a trailing backslash, "
        "an open quote or an open function above these lines.",
        stands_alone=True,
    ),
    Rule(
        "parse-error",
        Category.PARSE_ERROR,
        r"ParseError (?:at|in) (?P<file>[^\s:]{1,500})(?::(?P<line>\d{1,7}))?: (?P<what>.{0,300})",
        ("ParseError",),
        Weight.CAUSE,
        hint="BitBake can't read this file; correct the line it names.",
        stands_alone=True,
    ),
    Rule(
        "parse-old-override-syntax",
        Category.PARSE_ERROR,
        r"Variable (?P<variable>\S{1,200})(?: file: (?P<file>\S{1,500}))?(?: line: (?P<line>\d{1,7}))?"
        r" contains an operation using the old override syntax",
        ("old override syntax",),
        Weight.DETAIL,
        hint="Write overrides with a colon ({variable}: _append becomes :append, _remove :remove, "
        "_machine :machine). BitBake 1.52 (honister) and newer refuse underscores.",
        stands_alone=True,
    ),
    Rule(
        "parse-local-file-missing",
        Category.FETCH,
        r"(?:(?P<file>/\S{1,500}\.bb(?:append)?): )?Unable to get checksum for (?P<recipe>\S{1,120}) "
        r"SRC_URI entry (?P<missing>.{1,200}?): file could not be found",
        ("Unable to get checksum for",),
        Weight.DETAIL,
        hint="Put {missing} into one of the searched directories (files/ beside the recipe), or "
        "correct SRC_URI or FILESEXTRAPATHS.",
        stands_alone=True,
        warning=True,
    ),
    Rule(
        "parse-no-license",
        Category.LICENSE,
        r"(?:(?P<file>/\S{1,500}\.bb): )?This recipe does not have the LICENSE field set "
        r"\((?P<recipe>[^)\s]{1,120})\)",
        ("does not have the LICENSE field",),
        Weight.DETAIL,
        hint="Set LICENSE, and LIC_FILES_CHKSUM, in the recipe.",
        stands_alone=True,
    ),
    Rule(
        "parse-dangling-bbappend",
        Category.PARSE_ERROR,
        r"No recipes (?:in \S{1,80} )?available for:?\s*(?P<file>\S{0,500})",
        ("No recipes ",),
        Weight.DETAIL,
        next_line=r"^\s{1,8}(?P<file>\S{1,500}\.bbappend)",
        next_within=3,
        hint="The bbappend has no recipe of that name and version: rename it, use % for the "
        "version, or set BB_DANGLINGAPPENDS_WARNONLY.",
        stands_alone=True,
        warning=True,
    ),
    Rule(
        "parse-unable-to-parse",
        Category.PARSE_ERROR,
        r"Unable to parse (?P<file>/[^\s:]{1,500})(?::(?P<line>\d{1,7}))?:? ?(?P<what>.{0,300})",
        ("Unable to parse",),
        Weight.LIKELY,
        hint="Look at the file it names; the text above this line holds the reason.",
        stands_alone=True,
    ),
    Rule(
        "parse-python-function",
        Category.PARSE_ERROR,
        r"Error in compiling python function in (?P<file>[^\s,]{1,500}), line (?P<line>\d{1,7})",
        ("Error in compiling python function",),
        Weight.DETAIL,
        next_line=r"^(?:SyntaxError|IndentationError|TabError): ",
        next_within=30,
        hint="Python code of this file does not compile; correct the line it names.",
        stands_alone=True,
    ),
    Rule(
        "parse-python-syntax",
        Category.PARSE_ERROR,
        r"^(?:\S{1,60}: )?(?:SyntaxError|IndentationError|TabError): (?P<what>.{0,300})",
        ("SyntaxError:", "IndentationError:", "TabError:"),
        Weight.CAUSE,
        hint="Python code in a recipe or class does not compile: look at the position printed "
        "above; layers of different releases also lead to this.",
        stands_alone=True,
        where=Where.ANY,
    ),
    Rule(
        "parse-variable-name",
        Category.PARSE_ERROR,
        r"(?P<file>/\S{1,500}\.(?:bb|bbappend|inc|conf|bbclass))(?::(?P<line>\d{1,7}))?:? .{0,80}"
        r"(?:has a lowercase name|invalid character|is not a valid|keyword)",
        ("lowercase name", "invalid character", "is not a valid"),
        Weight.LIKELY,
        hint="Correct the name in the file.",
        where=Where.MESSAGE,
        stands_alone=True,
    ),
    Rule(
        "expansion-failure",
        Category.EXPANSION_ERROR,
        r"(?:ExpansionError during parsing (?P<file>[^\s:]{1,500}): )?"
        r"Failure expanding variable (?P<variable>[^,\s]{1,200}),? ?expression was (?P<what>.{0,4000})",
        ("Failure expanding variable",),
        Weight.DETAIL,
        hint="The value of {variable} can't be computed; the exception at the end of the line says "
        "why, the variable dependency chain says who uses it.",
        stands_alone=True,
    ),
    Rule(
        "expansion-fetch-output",
        Category.EXPANSION_ERROR,
        r"Failure expanding variable (?P<variable>[^,\s]{1,200}),? ?expression was .{0,5500}, output:$",
        ("Failure expanding variable",),
        Weight.DETAIL + 2,
        next_line=r"^(?:fatal|error|ssh|remote)\b|\bfatal: ",
        next_within=8,
        hint="{variable} asks the network while recipes are parsed (AUTOREV or a tag as SRCREV): pin "
        "SRCREV to a commit id, or make the server reachable.",
        stands_alone=True,
        retryable=True,
    ),
    Rule(
        "expansion-in-task",
        Category.EXPANSION_ERROR,
        r"^ExpansionError\('(?P<variable>[^']{1,200})', (?P<what>.{1,3000})",
        ("ExpansionError('",),
        Weight.DETAIL,
        hint="The value of {variable} can't be computed; the exception at the end says why.",
    ),
    Rule(
        "variable-renamed",
        Category.PARSE_ERROR,
        r"Variable (?P<variable>\S{1,120}) has been renamed to (?P<new>\S{1,120})"
        r"(?: \(file: (?P<file>[^\s)]{1,500}) line: (?P<line>\d{1,7})\))?",
        ("has been renamed to",),
        Weight.DETAIL,
        hint="Use {new} instead of {variable} in this file.",
        stands_alone=True,
        where=Where.MESSAGE,
    ),
    Rule(
        "expansion-failure-short",
        Category.EXPANSION_ERROR,
        r"Failure expanding (?:expression|variable) ?(?P<what>.{0,4000})",
        ("Failure expanding",),
        Weight.CAUSE,
        hint="A variable can't be computed; the exception in the line says why.",
        stands_alone=True,
    ),
    Rule(
        "expansion-recipe",
        Category.EXPANSION_ERROR,
        r"ExpansionError during parsing (?P<file>[^\s:]{1,500})",
        ("ExpansionError during parsing",),
        Weight.SIGN,
        hint="A variable of this recipe can't be computed; the lines below say which and why.",
        stands_alone=True,
    ),
    Rule(
        "expansion-self-reference",
        Category.EXPANSION_ERROR,
        r"Variable (?P<variable>\S{1,200}) references itself!",
        ("references itself",),
        Weight.DETAIL,
        hint="{variable} needs its own value: use :append, := or another variable.",
        stands_alone=True,
    ),
    Rule(
        "parse-failed-recipe",
        Category.PARSE_ERROR,
        r"Failed to parse recipe: (?P<file>\S{1,500})",
        ("Failed to parse recipe",),
        Weight.ECHO,
        hint="The reason is in the lines above.",
        stands_alone=True,
        cause_visible=False,
    ),
    Rule(
        "command-exited",
        Category.OTHER,
        r"Command execution failed: ",
        ("Command execution failed",),
        Weight.FRAME - 1,
        hint="See the error messages above this line.",
        stands_alone=True,
        cause_visible=False,
    ),
    Rule(
        "parse-halted",
        Category.PARSE_ERROR,
        r"(?:Parsing halted due to errors|Parse failure with the specified layer added)",
        ("Parsing halted", "Parse failure with"),
        Weight.FRAME,
        hint="See the error messages above this line.",
        stands_alone=True,
        cause_visible=False,
    ),
)
