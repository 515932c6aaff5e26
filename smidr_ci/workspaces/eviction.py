"""Which of the kept workspaces go when they are too many or too big."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from smidr_ci.workspaces.model import Budget, RestingWorkspace

__all__ = ["beyond"]


def beyond(kept: Sequence[RestingWorkspace], budget: Budget) -> Iterator[RestingWorkspace]:
    """Those that go, in order, until the rest fits the budget.

    Of several that the same builds could use the newest is worth most: the others go first, then
    who was used least recently.
    """
    newest: dict[tuple[str, str], RestingWorkspace] = {}
    for item in sorted(kept, key=_age):
        if item.warm_key:
            newest[item.key, item.warm_key] = item
    best = {item.path for item in newest.values()}
    order = sorted(kept, key=lambda item: (item.path in best, *_age(item)))
    count, size = len(order), sum(item.size_bytes for item in order)
    for item in order:
        if count <= budget.count and size <= budget.size_bytes:
            return
        yield item
        count, size = count - 1, size - item.size_bytes


def _age(item: RestingWorkspace) -> tuple[float, str]:
    return item.released.timestamp() if item.released else 0.0, str(item.path)
