"""What all configuration models have in common: frozen, no unknown key, an empty key is no key."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["KeyPath", "MisfitError", "MisfitsError", "Model"]

KeyPath = tuple[str | int, ...]
"""Where a value stands: `("layers", 0, "git")`."""


class MisfitError(ValueError):
    """Values that don't fit together; `at` is the key to blame, seen from the checking model."""

    def __init__(self, message: str, at: KeyPath = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.hint = hint


class MisfitsError(ValueError):
    """All faults that one check found."""

    def __init__(self, faults: tuple[MisfitError, ...]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = faults


class Model(BaseModel):
    """A frozen model that refuses unknown keys; a key without a value counts as not given."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        hide_input_in_errors=True,
        regex_engine="rust-regex",
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, raw: object) -> object:
        if not isinstance(raw, Mapping):
            return raw
        # An unknown key stays, so that it is refused with or without a value.
        return {k: v for k, v in raw.items() if v is not None or k not in cls.model_fields}
