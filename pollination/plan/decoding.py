"""List the decoding methods, with the facts that plan, forecast and jobs need.

A new method needs an entry here, a module in pollination/models/ that implements it, and a test.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A way to choose the tokens of a completion."""

    says: str
    """One line for the table of keys in config/README.md."""
    function: str
    """The function that implements it, as "module.function" under pollination/models/.

    `function(model, prompts, row_seeds, settings, eos_id, stop)` iterates over one completion
    (token ids) for each prompt, in order; `settings` are keys of a `generate` block. A method that
    samples calls `sampling.sample` with its own `draw`.
    """
    repeats: bool = False
    """Whether a prompt always gets the same completion, so a token budget cannot be filled."""
    temperature: bool = True
    """Whether temperature has an effect."""
    width: str | None = None
    """The key of `generate` with the number of parallel sequences per prompt; None: one sequence.

    The sequences share one copy of the prompt.
    """
    vllm: bool = False
    """Whether vLLM chooses tokens in the same way, for `generate.engine: vllm`."""

    def sequences(self, generate: dict) -> int:
        """Return the number of parallel sequences per prompt."""
        return generate[self.width] if self.width else 1


DECODINGS = {
    "nucleus": Method(
        "sample from the most likely tokens, whose probabilities add up to top_p",
        function="sampling.decode",
        vllm=True,
    ),
    "sample": Method(
        "sample with temperature and top_k only", function="sampling.decode", vllm=True
    ),
    "greedy": Method(
        "take the most likely token",
        function="sampling.decode",
        repeats=True,
        temperature=False,
        vllm=True,
    ),
    "beam": Method(
        "search for the most likely completion with num_beams beams",
        function="beam.decode",
        repeats=True,
        temperature=False,
        width="num_beams",
    ),
}
