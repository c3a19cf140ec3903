"""Study B's settings of generation (its table 1), and where an experiment holds ours."""

# setting -> (key of the experiment's `generate`, the study's value)
GENERATION = {
    "temperature": ("temperature", "0.0 (no sampling)"),
    "decoding": ("decoding", "beam"),
    "beams": ("num_beams", 5),
    "most new tokens": ("max_new_tokens", 128),
    "fewest new tokens": ("min_new_tokens", 128),
    "repetition penalty": ("repetition_penalty", "0.0 (not a legal value: 1.0)"),
    "batch": ("batch_size", 32),
    "prompt": ("prompt", "blocks"),
}
BLOCK_TOKENS = 128
