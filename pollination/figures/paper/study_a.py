"""Study A's settings (tables 1 and 2, appendices C and D), and their place in a config."""

# setting -> (section: model, founders, experiment or built; key; study A's value)
PAPER: dict[str, dict[str, tuple]] = {
    "Model": {
        "architecture": ("model", "architecture", "llama"),
        "layers": ("built", ("num_hidden_layers", "n_layer"), 12),
        "hidden dimension": ("built", ("hidden_size", "n_embd"), 768),
        "attention heads": ("built", ("num_attention_heads", "n_head"), 12),
        "head dimension": ("built", ("head_dim",), 64),
        "feed-forward dimension": ("built", ("intermediate_size", "ffn_dim", "n_inner"), 3072),
        "vocabulary": ("built", ("vocab_size",), 32_000),
        "parameters": ("built", ("parameters",), "about 100 million"),
        "context, tokens": ("model", "context_tokens", 1024),
        "positions": ("built", ("positions",), "rotary"),
    },
    "Training, generation 0": {
        "learning rate": ("founders", "train.learning_rate", 1e-3),
        "batch, sequences": ("founders", "train.batch_size", 128),
        "tokens per model": ("founders", "train.tokens", 1_000_000_000),
        "epochs": ("founders", "train.epochs", 1),
        "warm-up steps": ("founders", "train.warmup_steps", 1000),
        "weight decay": ("founders", "train.weight_decay", 0.01),
    },
    "Training, later generations": {
        "learning rate": ("experiment", "train.learning_rate", 2e-4),
        "batch, sequences": ("experiment", "train.batch_size", 64),
        "tokens per model (none: all text of its parent)": (
            "experiment",
            "train.tokens",
            1_000_000_000,
        ),
        "epochs": ("experiment", "train.epochs", 1),
        "warm-up steps": ("experiment", "train.warmup_steps", 1000),
        "schedule": ("experiment", "train.schedule", "cosine"),
        "AdamW betas": ("experiment", "train.betas", [0.9, 0.95]),
        "AdamW epsilon": ("experiment", "train.epsilon", 1e-8),
        "weight decay": ("experiment", "train.weight_decay", 0.01),
        "largest gradient norm": ("experiment", "train.max_grad_norm", 1.0),
    },
    "Evolution": {
        "population N": ("experiment", "population", 16),
        "generations": ("experiment", "generations", 5),
        "selected by": ("experiment", "select.task", "one of four benchmarks"),
        "parents k": ("experiment", "select.k", 4),
        "mutation scale": ("experiment", "mutate.scale", 0.01),
        "weights of a child": ("experiment", "weights", "parent"),
        "text of a child": ("experiment", "text", "parent"),
        "human text mixed in": ("experiment", "human.fraction", 0.0),
        "decoding": ("experiment", "generate.decoding", "nucleus"),
        "top-p": ("experiment", "generate.top_p", 0.9),
        "temperature": ("experiment", "generate.temperature", 0.7),
        "longest prompt, sentences": ("experiment", "generate.max_sentences", 8),
        "shortest completion, tokens": ("experiment", "generate.min_completion_tokens", 10),
        "synthetic tokens per parent": ("experiment", "generate.tokens", 1_000_000_000),
        "training seed": ("experiment", "seed", "42; line 42, 123, 456"),
    },
    "Choices that the papers leave open": {
        "founders' segments of text": ("founders", "segments", "not stated"),
        "mutation: standard deviation per": (
            "experiment",
            "mutate.per",
            "not stated (tensor or model)",
        ),
        "child trains on the prompt too": (
            "experiment",
            "train.include_prompt",
            "prompt-completion pairs",
        ),
        "checkpoint kept after training": (
            "experiment",
            "train.checkpoint",
            "not stated (last or best)",
        ),
        "token budget counts": (
            "experiment",
            "generate.budget_counts",
            "not stated (completion or text)",
        ),
        "longest prompt, tokens (none: half the context)": (
            "experiment",
            "generate.max_prompt_tokens",
            "not stated",
        ),
        "repetition penalty": ("experiment", "generate.repetition_penalty", "not stated"),
    },
}
SOFTWARE = {  # setting -> (key in the record of the first model, study A's value)
    "framework": ("pollination", "TorchTune 0.3.1"),
    "Python": ("python", "3.12"),
    "PyTorch": ("torch", "2.1.0"),
    "CUDA": ("cuda", "12.1"),
    "device": ("device", "NVIDIA A100 (80GB)"),
}
TABLES = {  # the sections of each of the study's tables
    "table_a1": ("Model", "Training, generation 0", "Training, later generations"),
    "table_a2": ("Evolution", "Evaluation", "Software and hardware"),
}
FIXED = {  # choices without a config key
    "pairs of a parent with itself": (
        "yes: all k*k ordered pairs",
        "all possible ordered pairs",
    ),
    "completions below the minimum length": ("dropped and replaced", "truncated"),
    "ties in the ranking": ("the lower slot first", "not stated"),
    "perplexity": (
        "exp of the mean over tokens; the mean over sequences beside it in scores.json",
        "not used",
    ),
    "synthetic text for training": ("the token ids that were sampled", "not stated"),
    "prompts from public benchmarks": ("never: held-out documents only", "partly"),
}
