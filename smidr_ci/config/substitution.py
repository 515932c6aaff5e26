"""`${VAR}`, `${VAR:-default}` and `${VAR:+text}` from the environment, for listed names only.

BitBake's files use the same signs, so every other `${...}` passes through byte for byte. It is one
pass: what a variable holds is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["Substitution", "SubstitutionError"]

_NAME: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-|:\+|\}|:|)")
_OWN_PREFIXES: Final = ("YOCTO_", "SMIDR_")
_SECRET_WORDS: Final = ("TOKEN", "PASSWORD", "PASSWD", "SECRET", "KEY", "CREDENTIAL")
_MAX_DEPTH: Final = 16
_MAX_GROWTH: Final = 64 * 1024
_MAX_TOTAL: Final = 1 << 20


class SubstitutionError(Exception):
    """What is wrong with a `${...}`; the message never holds a variable's value."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Substitution:
    """One file's substitution: the allow-list, the values, and how much was put in so far."""

    def __init__(self, environ: Mapping[str, str], extra_names: Iterable[str] = ()) -> None:
        self._environ = environ
        self._extra = frozenset(extra_names)
        self._total = 0

    def apply(self, text: str) -> str:
        """The text with listed variables replaced; raises `SubstitutionError`."""
        if "${" not in text:
            return text
        result, _ = self._scan(text, 0, depth=0, is_live=True)
        if result != text:
            self._total += len(result)
            if self._total > _MAX_TOTAL:
                raise SubstitutionError("substitution makes the file longer than 1 MiB")
        return result

    def _scan(self, text: str, start: int, *, depth: int, is_live: bool) -> tuple[str, int]:
        """Copy from `start` to the end (depth 0) or to the brace that closes this level."""
        if depth > _MAX_DEPTH:
            raise SubstitutionError(f"${{...}} is nested deeper than {_MAX_DEPTH} levels")
        out = _Output(len(text) + _MAX_GROWTH)
        at = start
        plain_braces = 0
        while at < len(text):
            found = _NAME.match(text, at) if text.startswith("${", at) else None
            if found and self._is_listed(found[1]):
                value, at = self._variable(text, found, depth=depth, is_live=is_live)
                out.add(value)
                continue
            if depth and text[at] == "}" and not plain_braces:
                return out.text(), at + 1
            # Braces of what passes through (`${TOPDIR}`, a Python dict) must balance in a default.
            plain_braces += {"{": 1, "}": -1}.get(text[at], 0)
            end = _next_special(text, at)
            out.add(text[at:end])
            at = end
        if depth:
            raise SubstitutionError("a ${...} is not closed", "Close it with a }.")
        return out.text(), at

    def _variable(
        self, text: str, found: re.Match[str], *, depth: int, is_live: bool
    ) -> tuple[str, int]:
        name, operator = found[1], found[2]
        if operator not in {"}", ":-", ":+"}:
            raise SubstitutionError(
                f"${{{name[:60]}...}} is not understood",
                f"Write ${{{name[:60]}}}, ${{{name[:60]}:-default}} or ${{{name[:60]}:+text}}.",
            )
        value = self._environ.get(name, "")
        if operator == "}":
            if name not in self._environ and is_live:
                raise SubstitutionError(
                    f"the variable {name[:60]} is not set",
                    f"Set it, or give a default: ${{{name[:60]}:-default}}.",
                )
            return (value if is_live else ""), found.end()
        takes_word = bool(value) == (operator == ":+")
        word, end = self._scan(text, found.end(), depth=depth + 1, is_live=is_live and takes_word)
        if not is_live:
            return "", end
        return (word if takes_word else "" if operator == ":+" else value), end

    def _is_listed(self, name: str) -> bool:
        is_listed = name in self._extra or name.startswith(_OWN_PREFIXES)
        is_secret = any(word in name for word in _SECRET_WORDS)
        if is_secret and is_listed and (name.startswith("SMIDR_") or name not in self._extra):
            raise SubstitutionError(
                f"{name[:60]} looks like a secret, which is never put into a config",
                "Secrets belong into agent.yaml, as files; or give the variable another name.",
            )
        return is_listed


class _Output:
    def __init__(self, limit: int) -> None:
        self._parts: list[str] = []
        self._room = limit

    def add(self, part: str) -> None:
        self._parts.append(part)
        self._room -= len(part)
        if self._room < 0:
            raise SubstitutionError("substitution makes a value too long")

    def text(self) -> str:
        return "".join(self._parts)


_SPECIAL: Final = re.compile(r"[${}]")


def _next_special(text: str, at: int) -> int:
    found = _SPECIAL.search(text, at + 1)
    return found.start() if found else len(text)
