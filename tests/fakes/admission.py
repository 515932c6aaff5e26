"""A host that has room, or says what it is told to say."""

from __future__ import annotations

from collections.abc import Callable

from smidr_ci.builds.slots import Waiting

__all__ = ["FakeAdmission"]


class FakeAdmission:
    """Implements `smidr_ci.builds.admission.Admission`; `asked` lists the ids it was asked for.

    `meanwhile` is called during each check, as anything may happen in that time.
    """

    def __init__(self, refusal: str | None = None) -> None:
        self.refusal = refusal
        self.asked: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def check(self, build: Waiting) -> str | None:
        self.asked.append(build.build_id)
        self.meanwhile()
        return self.refusal
