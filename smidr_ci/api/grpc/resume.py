"""Streams that go on after a lost connection, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

import grpc

from smidr_ci.api.grpc.failures import Status, error_from, is_lost
from smidr_ci.clock import Clock

__all__ = ["resumed"]

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0


def resumed(
    open_stream: Callable[[], Any], address: str, clock: Clock, patience_s: float
) -> Iterator[Any]:
    """The responses of a stream that is opened again when the agent goes away.

    `open_stream` asks for what has not come yet. Once a response has come, a lost connection is
    tried again, until `patience_s` have passed without one. Raises `SmidrError`.
    """
    given_up_at, pause = None, _FIRST_PAUSE_S
    while True:
        call = open_stream()
        try:
            for response in call:
                given_up_at, pause = clock.monotonic() + patience_s, _FIRST_PAUSE_S
                yield response
        except grpc.RpcError as error:
            status = cast("Status", error)
            is_hopeless = given_up_at is None or clock.monotonic() + pause > given_up_at
            if is_hopeless or not is_lost(status):
                raise error_from(status, address) from None
        else:
            return
        finally:
            call.cancel()
        clock.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
