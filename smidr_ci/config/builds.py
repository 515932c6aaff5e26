"""The part of `agent.yaml` that says which builds that wait are built once for all of them."""

from __future__ import annotations

from typing import Literal

from smidr_ci.config.base import Model

__all__ = ["BuildSettings"]


class BuildSettings(Model):
    """How builds that wait at the same time go together."""

    share: Literal["none", "customer", "all"] = "customer"
    """Builds that wait with the same config, layers, targets and trust are built once, and each
    gets the result as its own: those of the same customer, of `all` customers, or `none`. Builds
    with `--clean`, `--fresh` or `--keep` are always built for themselves."""
