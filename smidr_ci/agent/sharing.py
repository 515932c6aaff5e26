"""The agent's part in what hosts share: it answers builds that read, and uploads when they end."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from smidr_ci.agent.status import OutboxStatus
from smidr_ci.builds.host import Host
from smidr_ci.builds.model import BuildRecord
from smidr_ci.builds.sharing import AGENTS_READERS, Readers
from smidr_ci.cancel import CancelToken
from smidr_ci.config.shared_caches import SharedCaches
from smidr_ci.errors import CancelledError, ConflictError, SmidrError
from smidr_ci.trust import Trust

if TYPE_CHECKING:  # not everybody shares
    from smidr_ci.builds.uploads import ShareFacts

__all__ = ["Sharing"]

_log = logging.getLogger(__name__)

_AFTER_BUILD_S: Final = 5.0
_FIRST_PAUSE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 1800.0
_LOWEST: Final = 19
_END_S: Final = 2.0


class Sharing:
    """Does nothing, in no thread, while `cache.share` is not set. Thread-safe."""

    def __init__(
        self,
        host: Callable[[], Host],
        *,
        after_build_s: float = _AFTER_BUILD_S,
        first_pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        """`host` gives the newest settings, `first_pause_s` follows a first failed upload."""
        self._host = host
        self._after_build_s = after_build_s
        self._first_pause_s = first_pause_s
        self._lock = threading.Lock()
        self._settings: SharedCaches | None = None
        self._readers: Readers | None = None
        self._reading_problem = ""
        self._upload_problem = ""
        self._facts: ShareFacts | None = None
        self._wanted = threading.Event()
        self._hurried = threading.Event()
        """The settings are others, or the end has come: no pause counts any more."""
        self._cancel = CancelToken()
        self._uploader: threading.Thread | None = None

    def look(self) -> None:
        """Go by the newest settings; at first, begin with what an earlier agent left."""
        settings = self._host().agent.cache.share
        with self._lock:
            if settings == self._settings or self._cancel.is_cancelled:
                return
            self._settings = settings
            self._serve(settings)
            if settings is not None and settings.upload and self._uploader is None:
                self._uploader = threading.Thread(
                    target=self._upload_for_ever, name="share-upload", daemon=True
                )
                self._uploader.start()
        self._hurried.set()
        self._wanted.set()

    def build_ended(self, _record: BuildRecord) -> None:
        """There may be something new.

        Also of a build that failed: an object is written when its task has succeeded. Nothing of an
        untrusted one lies in the caches that are looked into.
        """
        self._wanted.set()

    def stop(self) -> None:
        """Answer no more; an upload that runs is broken off."""
        self._cancel.cancel("The agent stops.")
        self._hurried.set()
        self._wanted.set()
        with self._lock:
            if self._readers is not None:
                self._readers.stop()
            uploader = self._uploader
        if uploader is not None:
            uploader.join(_END_S)  # no longer: a file system may hang

    @property
    def problems(self) -> tuple[str, ...]:
        """What the operator should see to."""
        with self._lock:
            readers, own = self._readers, self._reading_problem
        reading = own or (readers.problem if readers is not None else "")
        found = []
        if reading:
            found.append(f"Builds go on without the shared cache: {reading}")
        if self._upload_problem:
            found.append(f"Uploads to the shared cache wait: {self._upload_problem}")
        return tuple(found)

    def status(self) -> tuple[OutboxStatus, ...]:
        """Uploads that wait or were refused, as the other deliveries of this host are shown."""
        facts = self._facts
        if facts is None or not (facts.waiting or facts.damaged or self._upload_problem):
            return ()
        error = self._upload_problem or next(iter(facts.damaged), "")
        return (OutboxStatus("cache.share", facts.waiting, len(facts.damaged), error),)

    def _serve(self, settings: SharedCaches | None) -> None:
        if self._readers is not None:
            self._readers.stop()
        self._readers, self._reading_problem = None, ""
        if settings is None:
            return
        host = self._host()
        self._readers = Readers(settings, host.home.share / AGENTS_READERS, host.user, host.clock)
        try:
            for trust in Trust:
                self._readers.folder(trust)
        except SmidrError as error:
            self._reading_problem = str(error)
            _log.error("builds can't read the shared cache: %s", error)

    def _upload_for_ever(self) -> None:
        _give_way()
        pause_s = 0.0
        while not self._cancel.is_cancelled:
            if not pause_s:
                self._wanted.wait()
            # Builds that end together are followed by one round.
            self._hurried.wait(max(pause_s, self._after_build_s))
            self._hurried.clear()
            self._wanted.clear()
            pause_s = self._next_pause(pause_s) if self._has_failed() else 0.0

    def _next_pause(self, pause_s: float) -> float:
        return min(2 * pause_s, _LONGEST_PAUSE_S) if pause_s else self._first_pause_s

    def _has_failed(self) -> bool:
        self._count()
        try:
            return self._has_failed_to_upload()
        finally:
            self._count()

    def _count(self) -> None:
        """See what waits."""
        from smidr_ci.builds.uploads import share_facts  # noqa: PLC0415 - not everybody shares

        with contextlib.suppress(SmidrError, OSError):
            self._facts = share_facts(self._host(), self._cancel)

    def _has_failed_to_upload(self) -> bool:
        from smidr_ci.builds.uploads import upload  # noqa: PLC0415 - not everybody shares

        host = self._host()
        settings = host.agent.cache.share
        if self._cancel.is_cancelled or settings is None or not settings.upload:
            self._upload_problem = ""
            return False
        try:
            done = upload(host, self._cancel, _log.warning)
        except CancelledError:
            return False
        except ConflictError:
            return True  # somebody does it by hand
        except SmidrError as error:
            self._upload_problem = str(error)
            _log.warning("uploads to the shared cache wait: %s", error)
            return True
        except Exception:  # noqa: BLE001 - the next round may do better
            self._upload_problem = "a fault of smidr's, see the agent's log"
            _log.exception("uploads to the shared cache stumbled")
            return True
        self._upload_problem = ""
        if done.unsettled:
            self._wanted.set()
        if done.uploaded:
            size = f"{done.uploaded_bytes / 1e6:.1f} MB"
            _log.info("shared %d objects and downloads, %s", done.uploaded, size)
        return False


def _give_way() -> None:
    """Let this thread have the processor and the disk only when nobody else wants them."""
    from smidr_ci.caches.walk import idle_priority  # noqa: PLC0415 - not everybody shares

    idle_priority()
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
