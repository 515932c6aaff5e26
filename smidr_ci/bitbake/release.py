"""What differs between BitBake's releases in conf files and environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Release"]

_COLON_OVERRIDES: Final = (1, 52)
"""honister: `VAR:append`; the old `VAR_append` is then an ordinary variable."""
_NEW_NAMES: Final = (1, 53)
"""kirkstone: LICENSE_FLAGS_ACCEPTED, BB_HASHCONFIG_IGNORE_VARS, HALT for ABORT."""
_NO_TCLIBCAPPEND: Final = (2, 9)
"""styhead: OE-Core refuses to run where TCLIBCAPPEND is set."""


@dataclass(frozen=True)
class Release:
    """One release by its BitBake version, such as (2, 8) for scarthgap."""

    version: tuple[int, int]

    @property
    def conf_version(self) -> str:
        """OE-Core's LOCALCONF_VERSION (`conf/sanity.conf`): 1 to hardknott, 2 from honister on."""
        return "2" if self.version >= _COLON_OVERRIDES else "1"

    @property
    def appends_libc_to_tmpdir(self) -> bool:
        """Whether OE-Core's `defaultsetup.conf` adds TCLIBCAPPEND to TMPDIR."""
        return self.version < _NO_TCLIBCAPPEND

    @property
    def license_flags(self) -> str:
        """Name of the variable with accepted licence flags."""
        return f"LICENSE_FLAGS_{'ACCEPTED' if self.version >= _NEW_NAMES else 'WHITELIST'}"

    @property
    def config_hash_ignore(self) -> str:
        """Name of the variable with variables that don't invalidate the parse cache."""
        new = self.version >= _NEW_NAMES
        return "BB_HASHCONFIG_IGNORE_VARS" if new else "BB_HASHCONFIG_WHITELIST"

    @property
    def task_hash_ignore(self) -> str:
        """Name of the variable with variables that don't change what a task's hash is."""
        new = self.version >= _NEW_NAMES
        return "BB_BASEHASH_IGNORE_VARS" if new else "BB_HASHBASE_WHITELIST"

    def disk_action(self, action: str) -> str:
        """The word for an action of BB_DISKMON_DIRS (`bb/monitordisk.py`)."""
        return "ABORT" if action == "HALT" and self.version < _NEW_NAMES else action

    def append_to(self, name: str, override: str = "") -> str:
        """The variable's name with the append operator, limited to an override if one is given."""
        return self._operated(name, "append", override)

    def prepend_to(self, name: str) -> str:
        """The variable's name with the prepend operator."""
        return self._operated(name, "prepend", "")

    def _operated(self, name: str, operator: str, override: str) -> str:
        separator = ":" if self.version >= _COLON_OVERRIDES else "_"
        return separator.join(part for part in (name, operator, override) if part)
