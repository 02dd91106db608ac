"""What an orchestrator is to claim next: an attempt that somebody left, or a run that is to do."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from orchestrator.store import statement
from orchestrator.store.base import ClaimChoice
from orchestrator.store.owner import is_gone


@dataclass(frozen=True)
class Seeker:
    """Who claims.

    Attributes:
        owner: see `orchestrator.store.owner`.
        testbed: for which.
        choice: of a pool; None: the first run that is to do.
        besides: an open attempt that it has in hand.
        is_early: whether leases may have run out because nobody could renew them.
    """

    owner: str
    testbed: str
    choice: ClaimChoice | None
    besides: str | None
    is_early: Callable[[], bool]


def open_attempt(connection: Connection, seeker: Seeker, now: datetime) -> Any | None:
    """An attempt without an end that is this testbed's to drive, locked; with the spec of its run.

    Args:
        connection: in a transaction that writes.
        seeker: for whom.
        now: of the database.
    """
    choice = seeker.choice
    for owner, earliest in connection.execute(statement.OPEN_OWNERS).all():
        is_ours = owner == seeker.owner
        is_free = is_ours or is_gone(owner)
        if not is_free and (earliest >= now or seeker.is_early()):
            continue
        rows: list[Any] = []
        if is_ours and choice is not None:
            for each in choice.open_on():
                asked = {"of_owner": owner, "of_testbed": each}
                rows += connection.execute(statement.OPEN_ON_TESTBED, asked).all()
        else:
            rows += connection.execute(statement.OPEN_OF_OWNER, {"of_owner": owner}).all()
        for row in rows:
            if row.attempt_id == seeker.besides or (not is_free and row.lease_until >= now):
                continue
            if choice is not None and row.testbed != seeker.testbed and choice.is_colleague(row.testbed):
                continue
            taken = connection.execute(statement.TAKE_OPEN, {"of_attempt": row.attempt_id, "of_owner": owner}).first()
            # Its owner may have renewed the lease before the row was locked.
            if taken is not None and (is_free or taken.lease_until < now):
                return taken
    return None


def next_run(connection: Connection, choice: ClaimChoice | None) -> Any | None:
    """The run to do next, locked.

    Args:
        connection: in a transaction that writes.
        choice: see `Seeker`.
    """
    if choice is None:
        return connection.execute(statement.NEXT_RUN).first()
    after = choice.begin()
    if after is None:
        return None
    while True:
        asked = {"after": after, "window": choice.window}
        found = list(connection.execute(statement.NEXT_POSITIONS, asked).scalars())
        left, is_for_us = list(found), False
        while (position := choice.best(left)) is not None:
            is_for_us = True
            run = connection.execute(statement.RUN_AT, {"at": position}).first()
            if run is not None:
                choice.took(position)
                return run
            left.remove(position)  # another orchestrator takes it at this moment
        if len(found) < choice.window:
            choice.found_nothing()
            return None
        after = found[-1]
        if not is_for_us:
            choice.passed(after)
