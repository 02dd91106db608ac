"""The statements of every trial, built once: building them anew costs as much as running them."""

from sqlalchemy import BindParameter, bindparam, exists, func, insert, select, update

from contract.attempt_state import RunState
from orchestrator.store.schema import ATTEMPT, EVENT, EXPERIMENT, FACT, PAUSE_KEY, RUN

_OF_RUN: BindParameter[str] = bindparam("of_run")
_OF_ATTEMPT: BindParameter[str] = bindparam("of_attempt")

_OWNER: BindParameter[str] = bindparam("of_owner")

OPEN_OWNERS = (
    select(ATTEMPT.c.owner, func.min(ATTEMPT.c.lease_until).label("lease_until"))
    .where(ATTEMPT.c.finished_at.is_(None))
    .group_by(ATTEMPT.c.owner)
)
"""Who drives attempts without an end, each with its earliest lease: few rows, however many testbeds there are."""

_HEAD = (ATTEMPT.c.attempt_id, ATTEMPT.c.run_id, ATTEMPT.c.testbed, ATTEMPT.c.owner, ATTEMPT.c.lease_until)

OPEN_OF_OWNER = (
    select(*_HEAD).where(ATTEMPT.c.finished_at.is_(None), ATTEMPT.c.owner == _OWNER).order_by(ATTEMPT.c.claimed_at)
)
"""An owner's attempts without an end, not locked."""

OPEN_ON_TESTBED = OPEN_OF_OWNER.where(ATTEMPT.c.testbed == bindparam("of_testbed"))
"""Those of them on one testbed."""

RENEW_OPEN = (
    update(ATTEMPT)
    .where(ATTEMPT.c.finished_at.is_(None), ATTEMPT.c.owner == _OWNER)
    .values(lease_until=bindparam("lease_until"), updated_at=bindparam("updated_at"))
)
"""All of them are alive."""

TAKE_OPEN = (
    select(ATTEMPT, RUN.c.spec)
    .join(RUN, RUN.c.run_id == ATTEMPT.c.run_id)
    .where(ATTEMPT.c.attempt_id == _OF_ATTEMPT, ATTEMPT.c.finished_at.is_(None), ATTEMPT.c.owner == _OWNER)
    .with_for_update(of=ATTEMPT, skip_locked=True)
)
"""One of them, locked, with the spec of its run; none where another transaction holds it or took it meanwhile."""

# Here and not asked before: a pause holds from its commit on, and a campaign that runs pays no read for it.
_TO_DO = (RUN.c.state == RunState.TODO, ~exists().where(FACT.c.key == PAUSE_KEY))

NEXT_RUN = (
    select(RUN.c.run_id, RUN.c.spec).where(*_TO_DO).order_by(RUN.c.position).limit(1).with_for_update(skip_locked=True)
)
"""The first run in order that is to do; none while the campaign is paused."""

NEXT_POSITIONS = (
    select(RUN.c.position)
    .where(*_TO_DO, RUN.c.position > bindparam("after"))
    .order_by(RUN.c.position)
    .limit(bindparam("window"))
)
"""Where the next runs are that are to do: an index alone answers it, and nothing is locked."""

RUN_AT = (
    select(RUN.c.run_id, RUN.c.spec)
    .where(RUN.c.position == bindparam("at"), RUN.c.state == RunState.TODO)
    .with_for_update(skip_locked=True)
)
"""One of them, locked; none where another transaction holds it or took it meanwhile."""

LAST_NUMBER = select(func.max(ATTEMPT.c.number)).where(ATTEMPT.c.run_id == _OF_RUN)
"""How many attempts a run has had; None: none."""

ADD_ATTEMPT = insert(ATTEMPT)
SET_RUN_STATE = update(RUN).where(RUN.c.run_id == _OF_RUN).values(state=bindparam("state"))
ADD_EVENT = insert(EVENT)

ATTEMPT_HEAD = (
    select(ATTEMPT.c.run_id, ATTEMPT.c.state, ATTEMPT.c.owner, ATTEMPT.c.finished_at)
    .where(ATTEMPT.c.attempt_id == _OF_ATTEMPT)
    .with_for_update()
)
"""One attempt, locked, without its result, which is large."""

ACCEPTED = select(ATTEMPT.c.attempt_id).where(ATTEMPT.c.run_id == _OF_RUN, ATTEMPT.c.accepted).limit(1)
"""A run's accepted attempt."""

END_ATTEMPT = (
    update(ATTEMPT)
    .where(ATTEMPT.c.attempt_id == _OF_ATTEMPT)
    .values(
        {
            name: bindparam(name)
            for name in (
                "state",
                "accepted",
                "lease_until",
                "updated_at",
                "finished_at",
                "error",
                "result",
                "reasons",
            )
        }
    )
)
"""Writes all that is known at an attempt's end."""

HISTORY = (
    select(
        ATTEMPT.c.number,
        ATTEMPT.c.state,
        ATTEMPT.c.accepted,
        ATTEMPT.c.error,
        RUN.c.reopened_after,
        select(EXPERIMENT.c.max_attempts).scalar_subquery().label("max_attempts"),
    )
    .join(RUN, RUN.c.run_id == ATTEMPT.c.run_id)
    .where(ATTEMPT.c.run_id == _OF_RUN)
    .order_by(ATTEMPT.c.number)
)
"""A run's attempts, oldest first, with what its state is derived from beside them."""
