"""The form of a token: `smidr_<id>_<43 letters and digits>`, 256 random bits.

The beginning is fixed, so that secret scanners and log filters know one when they see it.
"""

from __future__ import annotations

import re
import secrets
import string
from typing import Final

__all__ = ["LOCAL_ID", "PATTERN", "id_of_secret", "new_id", "new_secret"]

LOCAL_ID: Final = "local"
"""In place of an id, in the token of an agent's own user."""
PATTERN: Final = r"smidr_(?:[0-9a-f]{8}|local)_[0-9A-Za-z]{43}"
"""A regular expression that finds tokens in text."""
_TOKEN: Final = re.compile(PATTERN)
_ALPHABET: Final = string.ascii_letters + string.digits
_LENGTH: Final = 43  # 62 ** 43 is just over 2 ** 256


def new_id() -> str:
    """Eight hexadecimal digits; no secret."""
    return secrets.token_hex(4)


def new_secret(token_id: str) -> str:
    """A token that nobody can guess."""
    return f"smidr_{token_id}_{''.join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))}"


def id_of_secret(secret: str) -> str | None:
    """The id in a token; None for text of another form."""
    if len(secret) > 80 or _TOKEN.fullmatch(secret) is None:
        return None
    return secret.split("_")[1]
