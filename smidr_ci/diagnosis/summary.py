"""The figures that BitBake prints about a run."""

from __future__ import annotations

import re
from typing import Final

from smidr_ci.diagnosis.model import Summary
from smidr_ci.diagnosis.reader import Hit

__all__ = ["SummaryReader"]

_TASKS: Final = re.compile(
    r"Tasks Summary: Attempted (?P<attempted>\d{1,9}) tasks of which "
    r"(?P<not_rerun>\d{1,9}) didn't need to be rerun"
    r" and (?:(?P<failed>\d{1,9}) failed|all succeeded)"
)
_SSTATE: Final = re.compile(
    r"Sstate summary: Wanted (?P<wanted>\d{1,9})(?: Local (?P<local>\d{1,9}))?(?: (?:Network"
    r"|Mirrors) (?P<mirrors>\d{1,9}))?"
    r"(?: Found (?P<found>\d{1,9}))?(?: Missed (?P<missed>\d{1,9}))?"
    r"(?: Current (?P<current>\d{1,9}))?"
)
_FAILED: Final = re.compile(r"^\s{1,4}(?P<task>\S{1,600}:do_\w{1,60})$")
_SETTING: Final = re.compile(r'^(?P<name>[A-Z_]{4,24})\s{0,24}= "(?P<value>[^"]{0,200})"')
_MESSAGES: Final = re.compile(
    r"Summary: There (?:was|were) (?P<count>\d{1,9}) (?P<kind>ERROR|WARNING) message"
)


class SummaryReader:
    """Collects the figures while a log is read."""

    def __init__(self) -> None:
        self.errors = 0
        self.warnings = 0
        self.lines = 0
        self.bytes = 0
        self.succeeded: bool | None = None
        self._numbers: dict[str, int] = {}
        self._sstate: dict[str, int] = {}
        self._settings: dict[str, str] = {}
        self._failed: list[str] = []
        self._printed: dict[str, int] = {}

    def take(self, text: str, hit: Hit) -> bool:
        """Whether the line was one of BitBake's figures; those need no rule."""
        if text.startswith("BB_VERSION"):
            self._read_configuration(text, hit)
            return True
        return "ummary: " in text and (self._take_figures(text) or self._take_failed(text, hit))

    def _take_figures(self, text: str) -> bool:
        if match := _TASKS.search(text):
            self._numbers = {key: int(value) for key, value in match.groupdict().items() if value}
            self.succeeded = match["failed"] is None
        elif match := _SSTATE.search(text):
            self._sstate = {key: int(value) for key, value in match.groupdict().items() if value}
        elif match := _MESSAGES.search(text):
            self._printed[match["kind"]] = int(match["count"])
        return match is not None

    def _take_failed(self, text: str, hit: Hit) -> bool:
        if not (text.startswith("Summary: ") and ("failed:" in text or "task failed" in text)):
            return False
        self.succeeded = False
        for near in hit.after(50):
            if failed := _FAILED.match(near.text.body):
                self._failed.append(failed["task"])
            elif "log: " not in near.text.body:
                break
        return True

    def _read_configuration(self, text: str, hit: Hit) -> None:
        for line in (text, *(near.text.body for near in hit.after(12))):
            if match := _SETTING.match(line):
                self._settings[match["name"]] = match["value"]

    @property
    def is_console(self) -> bool:
        """Whether this is a console log of a build, and no piece of one."""
        return bool(self._settings or self._numbers or self._sstate)

    @property
    def is_finished(self) -> bool:
        """Whether the log goes on to BitBake's last words, so that nothing was cut off."""
        return "ERROR" in self._printed

    @property
    def has_errors(self) -> bool:
        """Whether BitBake counted or printed an ERROR."""
        return self.errors > 0 or self._printed.get("ERROR", 0) > 0

    def result(self) -> Summary:
        """The figures so far."""
        succeeded = self.succeeded
        if succeeded and self.has_errors:
            succeeded = False
        return Summary(
            succeeded=succeeded,
            errors=self.errors,
            warnings=self.warnings,
            bitbake_version=self._settings.get("BB_VERSION"),
            machine=self._settings.get("MACHINE"),
            distro=self._settings.get("DISTRO"),
            distro_version=self._settings.get("DISTRO_VERSION"),
            tasks_attempted=self._numbers.get("attempted"),
            tasks_not_rerun=self._numbers.get("not_rerun"),
            tasks_failed=self._numbers.get("failed"),
            failed_tasks=tuple(self._failed[:50]),
            sstate=self._sstate,
            lines=self.lines,
            bytes=self.bytes,
        )
