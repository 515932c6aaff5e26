"""Targets nobody provides, recipes that were skipped, and things provided twice."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight

__all__ = ["RULES"]

_SKIPPED: Final = (
    r"^\s{0,4}(?P<recipe_skipped>\S{1,160})(?: (?:R?PROVIDES) (?P<missing>\S{1,160}) but)? "
    r"was skipped: (?P<reason>"
)


def _skipped(name: str, reason: str, hint: str, weight: int = Weight.DETAIL) -> Rule:
    return Rule(
        f"skipped-{name}",
        Category.MISSING_PROVIDER,
        f"{_SKIPPED}{reason})",
        ("was skipped: ",),
        weight,
        hint=hint,
        stands_alone=True,
    )


RULES: Final = (
    _skipped(
        "preference",
        r"PREFERRED_PROVIDER_\S{1,120} set to (?P<preferred>[^,\s]{1,120}).{0,200}",
        "PREFERRED_PROVIDER chooses {preferred}; choose one that can be built for this machine.",
        Weight.CAUSE + 1,
    ),
    _skipped(
        "distro-feature",
        r".{0,200}(?:missing required distro features?|missing required DISTRO_FEATURES|"
        r"conflicting distro features?|conflicting DISTRO_FEATURES).{0,400}",
        "{recipe_skipped} needs a distro feature that is not set (or must not be): change "
        "DISTRO_FEATURES or drop what asks for it.",
        Weight.DETAIL + 2,
    ),
    _skipped(
        "machine",
        r"incompatible with machine .{0,300}",
        "{recipe_skipped} does not allow this MACHINE in COMPATIBLE_MACHINE: choose another "
        "provider, or extend COMPATIBLE_MACHINE in a bbappend when it really fits.",
    ),
    _skipped(
        "host",
        r"incompatible with host .{0,300}",
        "COMPATIBLE_HOST of {recipe_skipped} does not allow this target: let only the machines it "
        "supports depend on it.",
    ),
    _skipped(
        "license",
        r".{0,200}(?:restricted license|LICENSE_FLAGS|incompatible license|because it has a|"
        r"incompatible with license).{0,400}",
        "{recipe_skipped} has a licence flag that is not accepted: add it to "
        "LICENSE_FLAGS_ACCEPTED (LICENSE_FLAGS_WHITELIST before kirkstone), or do without.",
        Weight.DETAIL + 1,
    ),
    _skipped(
        "blocked",
        r".{0,200}(?:Recipe is blacklisted|PNBLACKLIST|SKIP_RECIPE|will be skipped because).{0,400}",
        "The configuration forbids {recipe_skipped}: see the reason in the line.",
        Weight.DETAIL + 1,
    ),
    _skipped(
        "other",
        r"(?!PREFERRED_PROVIDER).{0,500}",
        "{recipe_skipped} was skipped; the line says why.",
    ),
    Rule(
        "nothing-provides",
        Category.MISSING_PROVIDER,
        r"Nothing (?P<kind>R?PROVIDES) '(?P<missing>[^']{1,200})'"
        r"(?: \(but (?P<asker>.{1,600}?) (?:R?DEPENDS on|otherwise))?",
        ("PROVIDES ",),
        Weight.CAUSE,
        hint="No recipe of the configured layers provides {missing}: add the layer that has it, "
        "correct the name, or drop the dependency.",
        stands_alone=True,
    ),
    Rule(
        "no-eligible-provider",
        Category.MISSING_PROVIDER,
        r"No eligible (?:R?PROVIDERs|providers)(?: exist)? for '?(?P<missing>[^'\s]{1,200})'?",
        ("No eligible ",),
        Weight.CAUSE,
        hint="Recipes for {missing} exist but none can be built in this configuration.",
        stands_alone=True,
    ),
    Rule(
        "unbuildable-target",
        Category.MISSING_PROVIDER,
        r"Required build target '(?P<target>[^']{1,200})' has no buildable providers",
        ("has no buildable providers",),
        Weight.SIGN,
        hint="See which dependency of {target} has no provider.",
        stands_alone=True,
    ),
    Rule(
        "multiple-providers",
        Category.MULTIPLE_PROVIDERS,
        r"Multiple \.bb files are due to be built which each provide (?P<missing>[^\s:(]{1,200})",
        ("which each provide",),
        Weight.DETAIL,
        hint="Two recipes of this build provide {missing}: choose one with PREFERRED_PROVIDER or "
        "PREFERRED_RPROVIDER, or drop the dependency that brings the other.",
        also=r"^\s{1,8}(?P<asker>\S{1,500}\.bb):do_",
        next_within=40,
        stands_alone=True,
    ),
    Rule(
        "multiple-versions",
        Category.MULTIPLE_PROVIDERS,
        r"Multiple versions of (?P<missing>\S{1,200}) are due to be built",
        ("Multiple versions of",),
        Weight.DETAIL,
        hint="Set PREFERRED_VERSION for {missing}.",
        stands_alone=True,
    ),
    Rule(
        "task-does-not-exist",
        Category.OTHER,
        r"Task (?P<what>\S{1,80}) does not exist for target (?P<recipe>\S{1,160})",
        ("does not exist for target",),
        Weight.DETAIL,
        hint="Check the task's name (bitbake -c listtasks {recipe}).",
        stands_alone=True,
    ),
    Rule(
        "task-depends-on-missing-task",
        Category.OTHER,
        r"Task (?P<what>\S{1,120}) (?:in \S{1,400} )?r?depends upon (?:nonexistent|non-existent) task "
        r"(?P<missing>\S{1,120})(?: in (?P<file>\S{1,400}))?",
        ("depends upon non",),
        Weight.DETAIL,
        hint="A task dependency names a task that the recipe does not have.",
        stands_alone=True,
    ),
    Rule(
        "dependency-loop",
        Category.OTHER,
        r"(?:Dependency loop #\d{1,5} found|circular dependenc|Circular dependenc|"
        r"recursively depends|Unbuildable tasks were found)",
        ("loop #", "ircular dependenc", "recursively", "Unbuildable tasks"),
        Weight.CAUSE,
        hint="Two recipes need each other; the listed tasks show the circle. Remove one of the "
        "dependencies.",
        stands_alone=True,
    ),
)
