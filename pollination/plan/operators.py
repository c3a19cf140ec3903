"""List the operators of the loop: the values of `weights`, `text`, `select.rule`, `mutate.per`.

A new operator needs an entry here and a test. A selection rule also needs a function in evolution/.

Child m of k parents takes weights from rank m // k and text from rank m % k (study A, section 3).
Without selection, every slot is a rank of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Start(Enum):
    """The source of a child's initial weights."""

    NEW = "newly initialised weights"
    MODEL = "the pretrained model"
    FOUNDER = "its slot's founder"
    SLOT = "a slot of the previous generation"
    RANK = "a rank of the previous generation"
    SOUP = "an average of members of the previous generation"


def itself(slot: int, _k: int) -> int:
    return slot


def first_parent(slot: int, k: int) -> int:
    return slot // k


def second_parent(slot: int, k: int) -> list[int]:
    return [slot % k]


def own_slot(slot: int, _k: int) -> list[int]:
    return [slot]


def weights_parent(slot: int, k: int) -> list[int]:
    return [first_parent(slot, k)]


def everybody(_slot: int, k: int) -> range:
    return range(k)


def nobody(_slot: int, _k: int) -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Weights:
    """The initial weights of a child."""

    says: str
    start: Start
    origin: Callable[[int, int], int] = itself
    """(slot, k) -> the slot or rank whose weights the child takes."""
    pretrained: bool | None = None
    """Whether the model must be pretrained; None: it may be."""

    @property
    def needs_selection(self) -> bool:
        return self.start is Start.RANK

    @property
    def is_soup(self) -> bool:
        """Whether the experiment's `soup` gives the models and their shares (plan/graph.py)."""
        return self.start is Start.SOUP

    @property
    def can_mutate(self) -> bool:
        """Whether the weights come from the previous generation; no others are mutated."""
        return self.start in (Start.SLOT, Start.RANK)


@dataclass(frozen=True)
class Text:
    """The text that a child reads."""

    says: str
    writers: Callable[[int, int], Sequence[int]]
    """(slot, k) -> the ranks of the previous generation whose text the child reads."""
    needs_selection: bool = False
    refuses_selection: bool = False
    dealt: bool = False
    """Whether a job deals the writers' text, so that a child reads only a share of it."""
    is_graph: bool = False
    """Whether the experiment's `graph` gives the writers and their shares (plan/graph.py)."""

    @property
    def is_human(self) -> bool:
        """Whether it is the founder's human text, which no member writes."""
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
    """Whether the parents are the members with the highest scores.

    Then ties and the confidence of the selection are defined, and the rule draws no random numbers.
    """
    follows_weights: bool = False
    """Whether it follows parents to their children, so that children need `weights: parent`."""
    reads_all: bool = False
    """Whether it reads the accuracy on every benchmark, not only on `select.task`."""
    reads_truth: bool = False
    """Whether it ranks by excess nats, so that a text of a microworld is measured."""


@dataclass(frozen=True)
class Mutation:
    """The scale of a mutation's noise."""

    says: str
    together: bool = False
    """Whether the standard deviation of all weights together scales the noise of each tensor."""


WEIGHTS = {
    "parent": Weights("the mutated weights of parent i", Start.RANK, first_parent),
    "fresh": Weights("newly initialised weights", Start.NEW, pretrained=False),
    "founder": Weights("the founder of its slot", Start.FOUNDER),
    "base": Weights("the untouched pretrained model", Start.MODEL, pretrained=True),
    "own": Weights("the model of its slot in the previous generation", Start.SLOT),
    "soup": Weights("the average of the models that `soup` gives (a model soup)", Start.SOUP),
}
TEXTS = {
    "parent": Text("the text of parent j", second_parent, needs_selection=True),
    "weights_parent": Text(
        "the text of parent i, which also gives the weights (no crossover)",
        weights_parent,
        needs_selection=True,
    ),
    "own": Text("the text of its own slot", own_slot, refuses_selection=True),
    "pool": Text("an equal share of all parents' text, pooled and shuffled", everybody, dealt=True),
    "graph": Text("a mixture of writers that `graph` gives", everybody, is_graph=True),
    "human": Text("the human segment of its founder again", nobody),
}
SELECTION = {
    "truncation": Selection(
        "the k members with the highest accuracy", function="rules.truncation", takes_best=True
    ),
    "random": Selection(
        "k members drawn at random, a control that has a population but no selection",
        function="rules.draw",
    ),
    "tournament": Selection(
        "the winners of k tournaments; each draws two members, and the more accurate one wins",
        function="rules.tournament",
    ),
    "roulette": Selection(
        "k members drawn with probabilities proportional to accuracy",
        function="rules.roulette",
    ),
    "mean_rank": Selection(
        "the k members with the lowest mean rank over all benchmarks",
        function="rules.mean_rank",
        reads_all=True,
    ),
    "pareto": Selection(
        "the k members that the fewest Pareto fronts of all benchmarks precede, and within a front "
        "those with the lowest mean rank",
        function="rules.pareto",
        reads_all=True,
    ),
    "once": Selection(
        "the k founders with the highest accuracy, and then in each generation child (i, i) of "
        "each parent i, so that the lines of these founders go on",
        function="rules.once",
        follows_weights=True,
    ),
    "oracle": Selection(
        "the k members closest to the truth: lowest excess nats per token on the measured texts "
        "of microworlds",
        function="rules.oracle",
        reads_truth=True,
    ),
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
    """Return whether children read human text, alone or with synthetic text."""
    return experiment["human"]["fraction"] > 0 or reads_segment(experiment)


def reads_segment(experiment: dict) -> bool:
    """Return whether children read the human segment of their slot, alone or with other text."""
    return experiment["human"]["accumulate"] != "none" or text_of(experiment).is_human


def takes_best(rule: str) -> bool:
    """Return whether a rule takes the members with the highest scores; False for a user's rule."""
    return rule in SELECTION and SELECTION[rule].takes_best


def ranks_by(experiment: dict, task: str) -> bool:
    """Return whether an experiment needs the accuracy on a task to rank its members."""
    rule = SELECTION.get(experiment["select"]["rule"])
    every = selects(experiment) and rule is not None and rule.reads_all
    return every or experiment["select"]["task"] == task


def selects(experiment: dict) -> bool:
    """Return whether an experiment selects parents; otherwise every member is a parent."""
    return experiment["select"]["task"] != "none"


def are_lines(experiment: dict) -> bool:
    """Return whether each member goes on alone: weights and text of its own slot, no selection."""
    alone = experiment["weights"] == "own" == experiment["text"]
    return alone and not selects(experiment) and not experiment["text_of"]


def is_mutated(experiment: dict) -> bool:
    """Return whether children start from mutated weights."""
    return weights_of(experiment).can_mutate and experiment["mutate"]["scale"] > 0


def hands_on_weights(experiment: dict) -> bool:
    """Return whether a job writes the children's initial weights; else they read a member's."""
    weights = weights_of(experiment)
    return weights.needs_selection or weights.is_soup or is_mutated(experiment)
