"""Layers that don't fit together, aren't there, or need others."""

from __future__ import annotations

from typing import Final

from smidr_ci.diagnosis.model import Category
from smidr_ci.diagnosis.rules.base import Rule, Weight

__all__ = ["RULES"]

RULES: Final = (
    Rule(
        "layer-series",
        Category.LAYER_COMPAT,
        r"Layer (?P<layername>\S{1,120}) is not compatible with the core layer which only supports "
        r"(?:these series|this series): (?P<core>[^(]{1,200})(?:\(layer is compatible with "
        r"(?P<series>[^)]{0,200})\))?",
        ("is not compatible with the core layer",),
        Weight.ROOT,
        hint="Check out the branch of {layername} for {core}, or add that name to its "
        "LAYERSERIES_COMPAT when it is known to work.",
        stands_alone=True,
    ),
    Rule(
        "layer-no-series",
        Category.LAYER_COMPAT,
        r"Layer (?P<layername>\S{1,120}) should set LAYERSERIES_COMPAT",
        ("should set LAYERSERIES_COMPAT",),
        Weight.SIGN,
        hint="Set LAYERSERIES_COMPAT_{layername} in its conf/layer.conf.",
        stands_alone=True,
        warning=True,
    ),
    Rule(
        "layer-depends",
        Category.LAYER_DEPENDENCY,
        r"Layer '?(?P<layername>[^\s']{1,120})'? depends on (?:version (?P<version_needed>(?:[<>=]{1,2} )?\S{1,20}) of )?"
        r"layer '?(?P<missing>[^\s',]{1,120})'?, but (?:this layer is not enabled|version|it is not)",
        ("depends on layer", "depends on version"),
        Weight.ROOT,
        hint="Add the layer {missing} to the build (in the version it asks for).",
        stands_alone=True,
    ),
    Rule(
        "layer-missing-directory",
        Category.LAYER_DEPENDENCY,
        r"The following layer directories do not exist",
        ("layer directories do not exist",),
        Weight.ROOT,
        next_line=r"^\s{1,8}(?P<file>/\S{1,500})",
        next_within=4,
        hint="BBLAYERS names a directory that is not there: correct bblayers.conf or fetch the "
        "layer.",
        stands_alone=True,
    ),
    Rule(
        "layer-collection-error",
        Category.LAYER_DEPENDENCY,
        r"CollectionError: (?P<what>.{1,200})",
        ("CollectionError",),
        Weight.CAUSE,
        hint="A layer is not usable with the others; the ERROR lines that name it come before this "
        "traceback, or run bitbake to see them.",
        stands_alone=True,
        cause_visible=False,
    ),
    Rule(
        "layer-duplicate-collection",
        Category.LAYER_DEPENDENCY,
        r"Found duplicated BBFILE_COLLECTIONS '(?P<layername>[^']{1,120})'",
        ("BBFILE_COLLECTIONS",),
        Weight.ROOT,
        hint="Two layers call themselves {layername}: the same layer is listed twice in BBLAYERS, "
        "or its name must change.",
        stands_alone=True,
    ),
    Rule(
        "layer-missing-conf",
        Category.LAYER_DEPENDENCY,
        r"(?:BBFILE_PRIORITY_\S{1,120} not defined|invalid value for BBFILE_PRIORITY|"
        r"BBFILE_PATTERN_\S{1,120} not defined|"
        r"Specified layer directory \S{1,400} does(?:n't| not) (?:exist|contain))",
        ("BBFILE_P", "Specified layer directory"),
        Weight.CAUSE,
        hint="The layer's conf/layer.conf is incomplete or the directory is no layer.",
        stands_alone=True,
    ),
    Rule(
        "layer-mixed-releases",
        Category.LAYER_COMPAT,
        r"AttributeError: module '(?P<module>(?:oe|bb)\.\w[\w.]{0,60})' has no attribute '(?P<what>\w{1,80})'",
        ("AttributeError: module",),
        Weight.DETAIL,
        hint="{module} of this release has no {what}: layers, OE-Core and BitBake come from "
        "different releases. Use one branch for all.",
        stands_alone=True,
    ),
    Rule(
        "bitbake-too-old",
        Category.LAYER_COMPAT,
        r"Bitbake version (?P<needed>\S{1,20}) is required and version (?P<found>\S{1,20}) was found",
        ("is required and version",),
        Weight.ROOT,
        hint="Use BitBake {needed} or newer with these layers.",
        stands_alone=True,
    ),
)
