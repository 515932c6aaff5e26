"""Projects to start from: `smidr init` writes one of them."""

from smidr_ci.config.starters.write import STARTERS, write_starter

__all__ = ["STARTERS", "write_starter"]
