"""Study B's generation settings (its table 1), and their place in an experiment."""

# setting -> (key of the experiment's `generate`, the study's value)
GENERATION = {
    "temperature": ("temperature", "0.0 (no sampling)"),
    "decoding": ("decoding", "beam"),
    "beams": ("num_beams", 5),
    "maximum new tokens": ("max_new_tokens", 128),
    "minimum new tokens": ("min_new_tokens", 128),
    "repetition penalty": ("repetition_penalty", "0.0 (not a legal value: 1.0)"),
    "prompt": ("prompt", "blocks"),
}
# Prompts that are continued side by side. `generate.batch_size` counts rows, and beam search has a
# row per beam: 160 rows of 5 beams are 32 prompts, as `generate` of transformers counts its batch.
BATCH_PROMPTS = 32
BLOCK_TOKENS = 128
