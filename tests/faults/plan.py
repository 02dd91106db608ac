"""Which process is killed when: drawn from a seed before anything starts."""

import random
from dataclasses import dataclass
from typing import Literal, get_args

Victim = Literal[
    "orchestrator", "testbed", "runner", "energibridge", "both_nodes", "power_cut", "ctrl_c", "ctrl_c_twice"
]
"""`both_nodes`: orchestrator and testbed at one instant. `power_cut`: the testbed with all that it started.
`ctrl_c`: SIGINT to the orchestrator, no kill."""

Moment = Literal[
    "any",
    "claimed",
    "created",
    "child",
    "measuring",
    "recorded",
    "collected",
    "transfer",
    "transferred",
    "committed",
    "acknowledged",
]
"""`any`: after a random time. The others: a moment after the next attempt is claimed in the run table, exists on the
testbed, has its child, measures, has its record, has its result, begins to arrive, has arrived, is accepted in the run
table, is acknowledged on the testbed."""

_VICTIMS: tuple[Victim, ...] = (
    *("orchestrator",) * 6,
    *("testbed",) * 6,
    *("runner",) * 4,
    *("energibridge",) * 2,
    "both_nodes",
    "power_cut",
)
"""In their shares; twenty."""

MOMENTS: tuple[Moment, ...] = get_args(Moment)


@dataclass(frozen=True)
class Blow:
    """One event of a campaign.

    Attributes:
        victim: what is killed.
        moment: when; see `Moment`.
        delay_s: after the moment.
        down_s: before what was killed is started again.
        after_share: of the runs that must be done before.
        orchestrator_first: whether it is the first to be started again, of two.
    """

    victim: Victim
    moment: Moment
    delay_s: float
    down_s: float
    after_share: float
    orchestrator_first: bool


def draw(n_kills: int, n_interrupts: int, seed: int) -> list[Blow]:
    """The blows of a campaign, in order: half of them at any instant, half aimed at the boundaries of the states.

    Args:
        n_kills: SIGKILLs.
        n_interrupts: Ctrl-C, once and twice in turn.
        seed: of everything.
    """
    chance = random.Random(seed)
    victims: list[Victim] = []
    while len(victims) < n_kills:
        some = list(_VICTIMS)
        chance.shuffle(some)
        victims += some
    del victims[n_kills:]
    if 4 <= n_kills < len(_VICTIMS):
        # All four programs are among few victims, too.
        victims[:4] = ["orchestrator", "testbed", "runner", "energibridge"]
    for index in range(n_interrupts):
        victims.append("ctrl_c" if index % 2 == 0 else "ctrl_c_twice")
    chance.shuffle(victims)
    aimed = [moment for moment in MOMENTS if moment != "any"]
    blows = []
    for index, victim in enumerate(victims):
        is_aimed = victim in ("orchestrator", "testbed", "both_nodes", "power_cut") and chance.random() < 0.65
        blows.append(
            Blow(
                victim=victim,
                moment=chance.choice(aimed) if is_aimed else "any",
                delay_s=chance.uniform(0.0, 0.03) if is_aimed else chance.uniform(0.0, 1.0),
                down_s=chance.choice((0.0, chance.uniform(0.0, 2.0))),
                after_share=index / (len(victims) + 1),
                orchestrator_first=chance.random() < 0.5,
            )
        )
    return blows
