"""Recipe, version and task out of BitBake's labels, recipe paths and work directories."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["RecipeName", "from_label", "from_recipe_file", "from_work_path", "strip_variants"]

_REVISION: Final = re.compile(r"-r\d[\w.]{0,20}$")
_EPOCH: Final = re.compile(r"^\d{1,4}_(?=[\w.])")
# A version starts with a digit, with v and a digit, or is the word that stands for "from git".
_VERSION_START: Final = re.compile(
    r"-(?=v?\d|(?:git|svn|hg|gitr|AUTOINC|from-git|master|main|dev|latest|trunk|unstable"
    r"|\$\{PV\})(?:[-+_.]|$))"
)
_SERIES_THEN_VERSION: Final = re.compile(r"^(\d{1,2}(?:\.\d)?)-(?=v?\d)")
_FILE: Final = re.compile(
    r"(?:^|/)(?P<pn>[^/_\s]+(?:_(?!v?\d|git|svn"
    r"|%)[^/_\s]+){0,3})(?:_(?P<pv>[^/\s]{1,160}))?\.bb(?:append)?$"
)
_WORK: Final = re.compile(
    r"(?:/work/[\w.+]{1,60}(?:-[\w.+]{1,60}){0,8}|\.\.\.)/(?P<pn>(?!meta-|recipes-)[\w.+-]{1,120})"
    r"/(?P<pv>(?:\d{1,4}_)?(?:v?\d[\w.+~-]{0,160}|(?:git|svn|hg)[\w.+~-]{0,160}"
    r"|[\w.+~-]{1,160}-r\d{1,3}))(?=/|$|['\"\s:])"
)
# Up to 2011 the work directory was one folder, PN-PV-PR.
_WORK_OLD: Final = re.compile(r"/work/[\w.+-]{1,80}/(?P<label>[\w.+-]{1,200}-r\d[\w.]{0,10})/")
# Meson and CMake build beside the source, whose folder is PN-PV when it comes from a tarball.
_SOURCE_DIR: Final = re.compile(r"(?:^|\s)\.\./((?!\.)[\w.+-]{3,120}-\d[\w.+-]{0,40})/")
_BUILD_TREE: Final = re.compile(
    r"(?:^|[\s/'\"])(?P<pn>(?!work-shared|work/|stamps/)[a-zA-Z][\w.+-]{1,80})/(?P<pv>[\w.+~-]{1,100}-r\d{1,3})/(?=git/|build/"
    r"|temp/|image/|package|recipe-sysroot|sysroot|[\w.+-]{1,80}/)"
)


@dataclass(frozen=True, slots=True)
class RecipeName:
    """PN and PV; the version is None where a path doesn't tell it."""

    recipe: str
    version: str | None = None


def from_label(label: str) -> RecipeName:
    """Split `PN-PV-PR` as BitBake prints it before a message; a `mc:x:` prefix is dropped.

    The label is ambiguous (PN and PV may both hold `-` and digits); the best guess is returned.
    """
    name = label.rsplit(":", 1)[-1]
    name = _REVISION.sub("", name)
    start = _VERSION_START.search(name, 1)
    if not start:
        return RecipeName(name)
    recipe, version = name[: start.start()], name[start.end() :]
    # glib-2.0-2.66.7, openjdk-8-292.10: a series that is part of the name comes first.
    if series := _SERIES_THEN_VERSION.match(version):
        dotted = "." in series[1] and version.count(".") >= 2
        if dotted or recipe.endswith(("openjdk", "openjre", "db", "icedtea")):
            recipe, version = f"{recipe}-{series[1]}", version[series.end() :]
    return RecipeName(recipe, _EPOCH.sub("", version) or None)


def strip_variants(path: str) -> tuple[str, str, str]:
    """`(prefix, suffix, path)` of `virtual:multilib:lib32:/a/b.bb`: PN is prefix, BPN, suffix."""
    prefix = suffix = ""
    while True:
        if path.startswith(("mc:", "multiconfig:")):
            path = path.split(":", 2)[-1] if path.count(":") >= 2 else path.split(":", 1)[-1]
        elif path.startswith("virtual:multilib:") and path.count(":") >= 3:
            _, _, lib, path = path.split(":", 3)
            prefix += f"{lib}-"
        elif path.startswith("virtual:") and path.count(":") >= 2:
            _, variant, path = path.split(":", 2)
            if variant == "nativesdk":
                prefix += "nativesdk-"
            else:
                suffix = f"-{variant}"
        else:
            return prefix, suffix, path


def from_recipe_file(path: str) -> RecipeName | None:
    """PN and PV from `.../pn_pv.bb` as a task id writes it; None for other files."""
    prefix, suffix, plain = strip_variants(path)
    match = _FILE.search(plain)
    if not match:
        return None
    version = match["pv"]
    if version in {"%", None} or (version and "%" in version):
        version = None
    return RecipeName(f"{prefix}{match['pn']}{suffix}", version)


def from_work_path(text: str) -> RecipeName | None:
    """PN and PV from the first `.../work/<arch>/<pn>/<pv>[-r0]/` in the text."""
    if "/" not in text:
        return None
    match = _WORK.search(text)
    if match is None and (old := _WORK_OLD.search(text)):
        return from_label(old["label"])
    match = match or _BUILD_TREE.search(text)
    if match is None:
        if (source := _SOURCE_DIR.search(text)) and (name := from_label(source[1])).version:
            return name
        return None
    return RecipeName(match["pn"], _EPOCH.sub("", _REVISION.sub("", match["pv"])))
