"""Files that are too big for GitHub go to the operator's store, when there is one for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smidr_ci.artifacts.model import shown
from smidr_ci.builds.model import ArtifactRecord, BuildRecord
from smidr_ci.cancel import CancelToken
from smidr_ci.config.artifacts import ExternalStore as StoreSettings
from smidr_ci.forges.external import opened_external
from smidr_ci.forges.github.artifact_uploads import ExternalStore
from smidr_ci.stores.content import Content

__all__ = ["OperatorStore"]


@dataclass(frozen=True)
class OperatorStore:
    """Implements `ExternalStore` with `artifacts.external_store` of agent.yaml."""

    settings: StoreSettings | None
    record_of: Callable[[], BuildRecord]
    otherwise: ExternalStore
    """For builds whose files the store does not take."""
    cancel: CancelToken
    say: Callable[[str], None]

    def place(self, artifact: ArtifactRecord, path: Path) -> str:
        """A link to the file in the store, or where else it is.

        Raises `SmidrError`, and `OSError` when the file can't be opened.
        """
        if self.settings is None:
            return self.otherwise.place(artifact, path)
        record = self.record_of()
        names = (record.customer, record.build_id)
        with opened_external(self.settings, names, record.trust) as external:
            if external is None:
                return self.otherwise.place(artifact, path)
            self.say(f"Storing {shown(artifact.path)} ({artifact.size_bytes} bytes)")
            content = Content.of_file(path, artifact.size_bytes, artifact.sha256)
            return external.put(artifact.path, content, self.cancel).place
