"""What is made and what is sent go side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["one_ahead"]

T = TypeVar("T")


def one_ahead(items: Iterable[T]) -> Generator[T, None, None]:
    """The same items; each is made by a thread while the caller is busy with the one before.

    The thread has ended when this is exhausted or closed. Raises what making an item raises.
    """
    found, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(next, found, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, found, end)
            yield item  # type: ignore[misc]  # not the end, so one of the items
