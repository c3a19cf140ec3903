"""Price of tokens that an endpoint reads and writes, for the log messages of a collection."""


def price_of(row: dict, read: float, written: float) -> float | None:
    """Return the price of the tokens in the user's currency; None if models.csv has no prices.

    Prices in models.csv are per million tokens.
    """
    if not (row.get("input_price") and row.get("output_price")):
        return None
    try:
        return (read * float(row["input_price"]) + written * float(row["output_price"])) / 1e6
    except ValueError:
        raise ValueError(
            f"input_price, output_price of model {row['model']}: {row['input_price']!r}, "
            f"{row['output_price']!r}; both must be numbers or empty"
        ) from None


def forecast(missing: list[tuple[str, str]], settings: dict, row: dict) -> str:
    """Return a message: the highest price of the missing prompts, at 4 characters per token."""
    characters = sum(
        len(prompt) + len(settings["system"]) + len(settings["instruction"])
        for _, prompt in missing
    )
    price = price_of(row, characters / 4, len(missing) * settings["max_tokens"])
    return "" if price is None else f"; at most about {price:.2f} for the rest"


def spending(records, row: dict) -> str:
    """Return a message: the tokens that were written, and the price of these and the prompts."""
    tokens = [record["tokens"] for record in records]
    written = sum(written or 0 for _, written in tokens)
    price = price_of(row, sum(read or 0 for read, _ in tokens), written)
    return f", {written:,} tokens written" + ("" if price is None else f", {price:.2f} spent")
