"""What this host knows of recipes over time: how often built or restored, and what they took.

Only trusted builds are asked: what a stranger says of a recipe's time says nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from smidr_ci.builds.database import Database
from smidr_ci.builds.effort import RecipeWork
from smidr_ci.builds.model import Work
from smidr_ci.builds.tables import recipes

__all__ = ["RecipeFacts", "RecipeStore", "work_of"]

_MOST: Final = 20_000
_AT_ONCE: Final = 500


@dataclass(frozen=True)
class RecipeFacts:
    """One recipe of this host, whatever its machine; the last use counts."""

    recipe: str
    built: int
    """Builds that ran tasks of it."""
    restored: int
    """Builds that took all they needed of it from shared state."""
    times: Mapping[str, float]
    """Seconds that each task took when it last ran."""
    last_built: datetime | None
    last_used: datetime

    @property
    def total_s(self) -> float:
        """All its tasks, one after the other."""
        return sum(self.times.values())


class RecipeStore:
    """The table of recipes, at most 20,000: who was used least recently goes first.

    Raises `HostError` when the database can't be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, names: Sequence[str]) -> dict[str, RecipeFacts]:
        """Those of the names that are known."""
        with self._database.reading() as connection:
            return _found(connection, names)

    def costliest(self, limit: int) -> list[RecipeFacts]:
        """Recipes with the most time spared or spent: their time, as often as they were used."""
        with self._database.reading() as connection:
            every = [_facts(row._asdict()) for row in connection.execute(select(recipes))]
        every.sort(key=lambda item: (-item.total_s * (item.built + item.restored), item.recipe))
        return every[:limit]

    def learn(self, build_id: str, work: Mapping[str, RecipeWork], now: datetime) -> None:
        """Add what a build did; once per build, however often it is told."""
        with self._database.writing() as connection:
            is_told = select(recipes.c.recipe).where(recipes.c.build_id == build_id).limit(1)
            if connection.execute(is_told).first() is not None:
                return
            known = _found(connection, list(work))
            rows = [
                {**_after(known.get(name), item, now), "recipe": name, "build_id": build_id}
                for name, item in work.items()
            ]
            # Thousands at once, while no build can write its record.
            for some in _chunks(list(known)):
                connection.execute(delete(recipes).where(recipes.c.recipe.in_(some)))
            if rows:
                connection.execute(insert(recipes), rows)
            newest = select(recipes.c.last_used).order_by(recipes.c.last_used.desc())
            oldest = connection.execute(newest.offset(_MOST).limit(1)).scalar()
            if oldest is not None:
                connection.execute(delete(recipes).where(recipes.c.last_used <= oldest))


def _found(connection: Connection, names: Sequence[str]) -> dict[str, RecipeFacts]:
    found: dict[str, RecipeFacts] = {}
    for some in _chunks(names):
        rows = connection.execute(select(recipes).where(recipes.c.recipe.in_(some)))
        found |= {row.recipe: _facts(row._asdict()) for row in rows}
    return found


def work_of(
    work: Mapping[str, RecipeWork], known: Mapping[str, RecipeFacts], restored_size: int
) -> Work:
    """The sums; what a recipe had taken before and did not run now was spared, if it was restored.

    What unpacking took is taken off. A recipe that was not even restored, since nothing that ran
    needed it, counts nothing.
    """
    spared, timed = 0.0, 0
    for name, item in work.items():
        facts = known.get(name)
        if facts is None or not item.restored or not facts.times:
            continue
        timed += len(item.restored)
        would = sum(seconds for task, seconds in facts.times.items() if task not in item.ran)
        spared += max(0.0, would - sum(item.restored.values()))
    return Work(
        executed_s=round(sum(sum(item.ran.values()) for item in work.values()), 1),
        spared_s=round(spared, 1),
        restored=sum(len(item.restored) for item in work.values()),
        timed=timed,
        restored_bytes=restored_size,
    )


def _after(known: RecipeFacts | None, item: RecipeWork, now: datetime) -> dict[str, Any]:
    built, restored, times = (known.built, known.restored, known.times) if known else (0, 0, {})
    last_built = known.last_built if known else None
    return {
        "built": built + bool(item.ran),
        "restored": restored + (not item.ran),
        "times": {**times, **{task: round(took, 2) for task, took in item.ran.items()}},
        "last_built": now if item.ran else last_built,
        "last_used": now,
    }


def _facts(row: Mapping[str, Any]) -> RecipeFacts:
    return RecipeFacts(**{name: value for name, value in row.items() if name != "build_id"})


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(names), _AT_ONCE):
        yield names[begin : begin + _AT_ONCE]
