"""Every decoding method: what the plan, the forecast and a job that writes text need to know of it.

A new method is an entry here, a module in pollination/models/ that implements it, and a test.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """One way to choose the tokens of a completion."""

    says: str
    """One line for the table of keys in config/README.md."""
    function: str
    """The function that implements it, as "module.function" under pollination/models/.

    `function(model, prompts, row_seeds, settings, eos_id, stop)` iterates over one completion
    (token ids) for each prompt, in order; `settings` are keys of a `generate` block. A method that
    samples calls `sampling.sample` with its own `draw`.
    """
    repeats: bool = False
    """The same prompt always gets the same completion, so a token budget cannot be filled."""
    temperature: bool = True
    """Temperature has an effect."""
    width: str | None = None
    """The key of `generate` that holds how many sequences of a prompt are kept side by side, all
    behind one copy of the prompt. None: one sequence.
    """

    def sequences(self, generate: dict) -> int:
        """Sequences that are kept side by side for each prompt."""
        return generate[self.width] if self.width else 1


DECODINGS = {
    "nucleus": Method(
        "sample from the likeliest tokens whose mass reaches top_p", function="sampling.decode"
    ),
    "sample": Method("sample with temperature and top_k only", function="sampling.decode"),
    "greedy": Method(
        "take the likeliest token", function="sampling.decode", repeats=True, temperature=False
    ),
    "beam": Method(
        "search for the likeliest completion with num_beams beams",
        function="beam.decode",
        repeats=True,
        temperature=False,
        width="num_beams",
    ),
}
