"""Study B's generation settings (its table 1), and their place in an experiment."""

# setting -> (key of the experiment's `generate`, the study's value)
GENERATION = {
    "temperature": ("temperature", "0.0 (no sampling)"),
    "decoding": ("decoding", "beam"),
    "beams": ("num_beams", 5),
    "maximum new tokens": ("max_new_tokens", 128),
    "minimum new tokens": ("min_new_tokens", 128),
    "repetition penalty": ("repetition_penalty", "0.0 (not a legal value: 1.0)"),
    "batch": ("batch_size", 32),
    "prompt": ("prompt", "blocks"),
}
BLOCK_TOKENS = 128
