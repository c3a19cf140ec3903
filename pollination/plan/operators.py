"""The operators of the loop: each value of `weights`, `text`, `select.rule` and `mutate.per`, with
the facts that the plan needs.

A new operator is an entry here, and a test. A selection rule is a function in evolution/ too.

Child m of k parents takes weights from rank m // k and text from rank m % k (study A, section 3).
Without selection every slot is a rank of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Start(Enum):
    """What a child starts from."""

    NEW = "newly initialised weights"
    MODEL = "the pretrained model"
    FOUNDER = "its slot's founder"
    SLOT = "a slot of the generation before"
    RANK = "a rank of the generation before"


def itself(slot: int, _k: int) -> int:
    return slot


def first_parent(slot: int, k: int) -> int:
    return slot // k


def second_parent(slot: int, k: int) -> list[int]:
    return [slot % k]


def own_slot(slot: int, _k: int) -> list[int]:
    return [slot]


def everybody(_slot: int, k: int) -> range:
    return range(k)


def nobody(_slot: int, _k: int) -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Weights:
    """Where a child's weights start."""

    says: str
    start: Start
    origin: Callable[[int, int], int] = itself
    """(slot, k) -> the slot or rank whose weights the child takes."""
    pretrained: bool | None = None
    """Whether the model must be a pretrained one; None: either will do."""

    @property
    def needs_selection(self) -> bool:
        return self.start is Start.RANK

    @property
    def can_mutate(self) -> bool:
        """Only weights of the generation before are mutated."""
        return self.start in (Start.SLOT, Start.RANK)


@dataclass(frozen=True)
class Text:
    """Which text a child reads."""

    says: str
    writers: Callable[[int, int], Sequence[int]]
    """(slot, k) -> the ranks of the generation before whose text the child reads."""
    needs_selection: bool = False
    refuses_selection: bool = False
    dealt: bool = False
    """Whether a child reads a share of the writers' text, which a job deals, not all of it."""

    @property
    def is_human(self) -> bool:
        """Nobody writes it: it is the founder's human text."""
        return self.writers is nobody


@dataclass(frozen=True)
class Selection:
    """A rule that chooses parents."""

    says: str
    function: str
    """The function that implements it, as "module.function" under pollination/evolution/.

    `function(members, k, rng)` returns the slots of k members, the best first
    (evolution/selection.py).
    """
    takes_best: bool = False
    """Whether the parents are the members of highest score. Then ties and the confidence of the
    choice have a meaning, and the rule draws no random numbers.
    """


@dataclass(frozen=True)
class Mutation:
    """What the noise of a mutation is scaled by."""

    says: str
    together: bool = False
    """Whether one standard deviation, that of all weights, scales the noise of each tensor."""


WEIGHTS = {
    "parent": Weights("its parent i (mutated)", Start.RANK, first_parent),
    "fresh": Weights("a new initialisation", Start.NEW, pretrained=False),
    "founder": Weights("its slot's founder", Start.FOUNDER),
    "base": Weights("the untouched pretrained model", Start.MODEL, pretrained=True),
    "own": Weights("its slot's model of the generation before", Start.SLOT),
}
TEXTS = {
    "parent": Text("the text of its parent j", second_parent, needs_selection=True),
    "own": Text("its own slot's text", own_slot, refuses_selection=True),
    "pool": Text(
        "its share of everybody's text, shuffled and dealt equally", everybody, dealt=True
    ),
    "human": Text("its founder's human segment again", nobody),
}
SELECTION = {
    "truncation": Selection(
        "the k members of highest accuracy", function="selection.truncation", takes_best=True
    )
}
MUTATION = {
    "tensor": Mutation("the standard deviation of each tensor"),
    "model": Mutation("the standard deviation of all weights together", together=True),
}


def weights_of(experiment: dict) -> Weights:
    return WEIGHTS[experiment["weights"]]


def text_of(experiment: dict) -> Text:
    return TEXTS[experiment["text"]]


def reads_human(experiment: dict) -> bool:
    """Whether children read human text, alone or beside what was written."""
    human = experiment["human"]
    return human["fraction"] > 0 or human["accumulate"] != "none" or text_of(experiment).is_human


def takes_best(rule: str) -> bool:
    """Whether a rule takes the members of highest score; of a user's own rule nothing is known."""
    return rule in SELECTION and SELECTION[rule].takes_best


def selects(experiment: dict) -> bool:
    """Whether an experiment chooses parents; otherwise every member is one."""
    return experiment["select"]["task"] != "none"


def is_mutated(experiment: dict) -> bool:
    """Whether children start from weights with noise."""
    return weights_of(experiment).can_mutate and experiment["mutate"]["scale"] > 0


def hands_on_weights(experiment: dict) -> bool:
    """Whether a job writes the weights that children start from; else they read a member's own."""
    return weights_of(experiment).needs_selection or is_mutated(experiment)
