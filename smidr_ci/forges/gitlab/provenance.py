"""Where an artifact comes from, for jobs with RUNNER_GENERATE_ARTIFACTS_METADATA: SLSA provenance.

An in-toto statement (https://slsa.dev/provenance/v1) with what GitLab Runner writes into
`<artifact>-metadata.json`: checksums of the files, commit, runner, and names of variables without
their values.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from smidr_ci import __version__
from smidr_ci.artifacts.model import shown
from smidr_ci.cancel import CancelToken
from smidr_ci.clock import Clock
from smidr_ci.errors import BuildFailedError, FailureKind
from smidr_ci.files import as_host_error, open_untrusted, write_atomic
from smidr_ci.forges.gitlab.features import runner_info
from smidr_ci.forges.gitlab.payload import Job
from smidr_ci.forges.gitlab.selection import Selection, Tree
from smidr_ci.forges.gitlab.variables import JobVariables

__all__ = ["Provenance", "is_wanted"]

_VARIABLE: Final = "RUNNER_GENERATE_ARTIFACTS_METADATA"
_BUILD_TYPE: Final = (
    "https://docs.gitlab.com/ci/runners/configure_runners/#artifact-provenance-metadata"
)
_CHUNK: Final = 1 << 20


def is_wanted(variables: JobVariables) -> bool:
    """Whether the job asks for it."""
    return variables.flag(_VARIABLE)


@dataclass(frozen=True)
class Provenance:
    """Describes archives of one job; the statements are kept in `scratch` until they are sent."""

    job: Job
    variables: Mapping[str, str]
    scratch: Path
    clock: Clock
    cancel: CancelToken

    def added(self, selection: Selection, archive: str) -> Selection:
        """The selection with a statement about it, named by the archive's file name.

        Raises `BuildFailedError` for a file that can't be read, `HostError`, `CancelledError`.
        """
        name = f"{archive.removesuffix('.zip')}-metadata.json"
        others = Selection(selection.tree, set(selection.paths) - {name})
        text = json.dumps(self._statement(others), indent=1, sort_keys=True)
        place = self.scratch / f"metadata-{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        try:
            write_atomic(place, f"{text}\n")
        except OSError as error:
            raise as_host_error(error, "can't write the artifact's metadata", place) from error
        tree = Tree(selection.tree.root, {**selection.tree.overlays, name: place})
        return Selection(tree, [*others.paths, name])

    def _statement(self, selection: Selection) -> dict[str, Any]:
        get = self.variables.get
        source, number = get("CI_PROJECT_URL", ""), str(self.job.id)
        return {
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": "https://slsa.dev/provenance/v1",
            "subject": [
                {"name": path, "digest": {"sha256": digest}}
                for path, digest in self._digests(selection)
            ],
            "predicate": {
                "buildDefinition": {
                    "buildType": _BUILD_TYPE,
                    "externalParameters": {
                        **dict.fromkeys(self.variables, ""),
                        "entryPoint": self.job.info.name,
                        "source": source,
                    },
                    "internalParameters": {
                        "architecture": runner_info()["architecture"],
                        "executor": "smidr",
                        "job": number,
                        "name": get("CI_RUNNER_DESCRIPTION", ""),
                    },
                    "resolvedDependencies": [
                        {"uri": source, "digest": {"gitCommit": self.job.git_info.sha}}
                    ],
                },
                "runDetails": {
                    "builder": {
                        "id": f"{get('CI_SERVER_URL', '')}/-/runners/{get('CI_RUNNER_ID', '')}",
                        "version": {"smidr-ci": __version__},
                    },
                    "metadata": {
                        "invocationId": number,
                        "startedOn": get("CI_JOB_STARTED_AT", ""),
                        "finishedOn": _stamp(self.clock.now()),
                    },
                },
            },
        }

    def _digests(self, selection: Selection) -> Iterator[tuple[str, str]]:
        for path in selection.paths:
            place = selection.place(path)
            try:
                if stat.S_ISREG(place.lstat().st_mode):
                    yield path, self._digest(place)
            except OSError as error:
                raise BuildFailedError(
                    f"can't read an artifact: {error.strerror or error}",
                    where=shown(path),
                    hint="Give the file read permission at the end of the job, or exclude it.",
                    kind=FailureKind.ARTIFACTS,
                ) from error

    def _digest(self, place: Path) -> str:
        found = hashlib.sha256()
        with open_untrusted(place) as file:
            while chunk := file.read(_CHUNK):
                self.cancel.raise_if_cancelled()
                found.update(chunk)
        return found.hexdigest()


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
