"""Whether a build may go on in the directory that an earlier one left, and which of them fit it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildState
from smidr_ci.builds.outcome import Outcome
from smidr_ci.builds.preparation import Preparation
from smidr_ci.builds.request import BuildRequest
from smidr_ci.errors import FailureKind
from smidr_ci.files import open_untrusted
from smidr_ci.layers.model import LayerSet
from smidr_ci.trust import Trust
from smidr_ci.workspaces.model import Workspace

__all__ = ["Warmth", "damage_of", "is_sound", "signs_of_damage", "warmth_of"]

_VERSION: Final = 1
"""Of how smidr lays out a workspace: another one makes all that are kept useless."""
_LIMIT_BYTES: Final = 64 * 1024
_MAX_FAILURES: Final = 2
# Other values than before can't be told from the names of what lies in TMPDIR.
_SHAPING: Final = re.compile(
    r"\s*(?:export\s+)?(?:TMPDIR|TCLIBC\w*|TCMODE\w*|DISTRO|MACHINE|SDKMACHINE|PERSISTENT_DIR|CACHE"
    r"|STAMPS_DIR|BASE_WORKDIR|WORKDIR|DEPLOY_DIR\w*|BBMULTICONFIG)\b[^=]*=",
    re.ASCII,
)
_LAYOUT: Final = re.compile(r'^\s*OELAYOUT_ABI\s*=\s*"([0-9]{1,6})"', re.MULTILINE | re.ASCII)
_FAILED_BUT_SOUND: Final = frozenset({FailureKind.BUILD, FailureKind.FETCH, FailureKind.ARTIFACTS})
# OE-Core's sanity.bbclass and sstate.bbclass, bb/cache.py, pseudo, SQLite.
_DAMAGE: Final = re.compile(
    r"TMPDIR has changed (?:location|its layout version)"
    r"|trying to install files into a shared area when those files already exist"
    r"|[Mm]anifest \S+ (?:could )?not (?:be )?found"
    r"|database disk image is malformed|file is not a database"
    r"|pseudo: (?:.{0,200}path mismatch|server.{0,100}(?:abort|fail))|pseudo abort"
    r"|_?pickle\.UnpicklingError|EOFError: Ran out of input",
)


@dataclass(frozen=True)
class Warmth:
    """What a build may use, and leave to others."""

    key: str
    """Builds with the same may use each other's workspace; empty: nobody's, and for nobody."""
    starts_fresh: bool
    """It takes nobody's, but may leave its own."""


def warmth_of(host: Host, prepared: Preparation) -> Warmth:
    """By the operator's settings, the ref, and what was asked for this build."""
    request = prepared.request
    if not _may_be_warm(host, request):
        return Warmth("", starts_fresh=True)
    parts = [str(part) for part in _parts(host, prepared)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    return Warmth(key, starts_fresh=request.clean or request.fresh)


def _may_be_warm(host: Host, request: BuildRequest) -> bool:
    return (
        request.trust is Trust.TRUSTED
        and not request.keep_workspace  # whoever wants to look at it wants it to stay as it is
        and request.project.config.build.workspace != "fresh"
        and host.agent.workspaces.is_warm(request.ref)
    )


def _parts(host: Host, prepared: Preparation) -> Iterator[object]:
    """All that would make another build's TMPDIR wrong, or nearly useless, for this one.

    Commits are not among them: BitBake's stamps say what of theirs is still valid.
    """
    request, config, layers = prepared.request, prepared.config, prepared.layers
    yield _VERSION
    yield from (request.customer, config.name, request.project.path.name)
    # The artifacts of other targets must not be taken for this build's.
    yield sorted(prepared.targets)
    yield from (config.resolved_machine, config.base.distro, config.build.multiconfig)
    yield [line for line in config.local_conf if _SHAPING.match(line)]
    yield sorted(item for item in request.project.config.environment.items() if _shapes(item[0]))
    yield [str(path) for path in layers.bblayers]
    yield from (layers.bitbake, layers.bitbake_version, _release(layers), _layout(layers))
    # With a hash server stamps have other names than without: one kind would undo the other's work.
    yield from (config.advanced.bb_signature_handler, prepared.hash_server is not None)
    yield prepared.image.id
    yield from (host.user.uid, host.user.gid)
    yield sorted(prepared.places.private_roots.items())


def _shapes(name: str) -> bool:
    return _SHAPING.match(f"{name}=") is not None


def _release(layers: LayerSet) -> list[str]:
    return sorted(
        name for tree in layers.trees for layer in tree.layers for name in layer.core_series
    )


def _layout(layers: LayerSet) -> str:
    """OE-Core's version of how TMPDIR is laid out; empty without OE-Core."""
    for tree in layers.trees:
        for layer in tree.layers:
            if layer.collection == "core":
                try:
                    path = tree.tree / layer.path / "conf" / "abi_version.conf"
                    with open_untrusted(path) as file:
                        found = _LAYOUT.search(file.read(_LIMIT_BYTES).decode(errors="replace"))
                except OSError:
                    return ""
                return found[1] if found else ""
    return ""


def is_sound(outcome: Outcome, findings: Sequence[Mapping[str, Any]], failures: int) -> bool:
    """Whether others may go on where this build ended, after so many failures before it.

    A build that was stopped or killed leaves half of something. After two failures in a row the
    directory itself may be the reason.
    """
    if outcome.state is BuildState.COMPLETED:
        return True
    return (
        outcome.state is BuildState.FAILED
        and outcome.kind in _FAILED_BUT_SOUND
        and failures + 1 < _MAX_FAILURES
        and not signs_of_damage(findings)
    )


def damage_of(workspace: Workspace, outcome: Outcome, findings: Sequence[Mapping[str, Any]]) -> str:
    """Why a warm workspace, and not the project, seems to have failed the build; else empty."""
    if not workspace.is_warm or outcome.kind is not FailureKind.BUILD:
        return ""
    return signs_of_damage(findings)


def signs_of_damage(findings: Sequence[Mapping[str, Any]]) -> str:
    """The first error that speaks of what lies in TMPDIR rather than of the project; else empty."""
    for finding in findings:
        if finding.get("severity") != "error":
            continue
        lines = [str(line.get("text", "")) for line in finding.get("excerpt", ())]
        text = "\n".join([str(finding.get("message", "")), *lines])
        if _DAMAGE.search(text):
            return str(finding.get("message", ""))
    return ""
