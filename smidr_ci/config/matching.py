"""Strings with a shape: the pattern checks, the words tell the user what is wanted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

__all__ = ["Called", "Matching", "shown"]

_SHOWN: Final = 60


def shown(value: object) -> str:
    """The value for a message: quoted, escaped, and not long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


@dataclass(frozen=True)
class Called:
    """What the reference calls a type, such as `size`."""

    name: str


@dataclass(frozen=True)
class Matching(Called):
    """A string must match the pattern as a whole; `what` says in words what it may be."""

    pattern: str
    what: str
    refused: str = ""
    """A second pattern, that must not be found anywhere."""

    def check(self, text: str) -> str:
        """The text itself; raises ValueError."""
        if not re.fullmatch(self.pattern, text) or (self.refused and re.search(self.refused, text)):
            raise ValueError(f"is {shown(text)}, which is not {self.what}")
        return text

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        refused = f"(?!.*(?:{self.refused}))" if self.refused else ""
        return {**handler(schema), "pattern": f"^{refused}(?:{self.pattern})$"}
