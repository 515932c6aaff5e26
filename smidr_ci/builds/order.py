"""What an agent is asked to build: plain data that waits in the store and survives a restart.

A `BuildRequest` is an order whose config was read and checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from smidr_ci.builds.model import BuildRecord
from smidr_ci.trust import Trust

__all__ = ["Order", "order_of"]

_IN_RECORD: Final = frozenset(
    {"customer", "config_text", "config_name", "targets", "requested_by", "trust"}
)
"""Fields that a record has already, under names of its own."""


@dataclass(frozen=True)
class Order:
    """A project config as text, and how this one build of it shall run."""

    customer: str
    config_text: str
    config_name: str
    """The config's file name or path, for messages."""
    directory: Path
    """Absolute host directory that the config's relative paths start from."""
    targets: tuple[str, ...] = ()
    """Instead of the config's own targets, when not empty."""
    clean: bool = False
    fresh: bool = False
    """Go on in no earlier build's directory."""
    clean_image: bool = False
    fetch_only: bool = False
    locked: bool = False
    keep_workspace: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    """What `${NAME}` in the config stands for; nothing else is substituted."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables for BitBake and recipes; they win over the config's own `environment`."""
    is_confined: bool = True
    """From a stranger: the config may not lead out of `directory`."""
    requested_by: str = ""
    """Who asked, for history."""
    trust: Trust = Trust.TRUSTED
    """An untrusted order is confined, whatever `is_confined` says."""
    private_cache_key: str = ""
    """Untrusted builds with the same key use the same private cache, one after the other, such as
    `gitlab:group/project!42`. Without one it is thrown away."""

    ref: str = ""
    """What is built, such as `refs/heads/main` or `refs/tags/v1`; empty when that is not known. The
    operator's settings say by it which builds are warm."""
    runs_for: str = ""
    """The build whose order this is, when it is run once for several; see `shared_runs`."""

    def to_json(self) -> dict[str, Any]:
        """What the record does not hold yet, for `BuildRecord.order`."""
        plain = {key: value for key, value in asdict(self).items() if key not in _IN_RECORD}
        return {**plain, "directory": str(self.directory)}


def order_of(record: BuildRecord) -> Order:
    """The order that led to this record, with the targets that were settled then."""
    stored = dict(record.order)
    stored["directory"] = Path(stored["directory"])
    return Order(
        customer=record.customer,
        config_text=record.config_text,
        config_name=record.config_path,
        targets=record.targets,
        requested_by=record.requested_by,
        trust=record.trust,
        **stored,
    )
