"""Compare fingerprints of deployed models' outputs with a plain implementation of the definition.

The toolkit that defines fingerprints, Slop Forensics, is not a package: users clone it and download
NLTK's corpora by hand. The peer therefore repeats its steps with its libraries (NLTK, Counter,
wordfreq) and without its other metrics. Like the toolkit, it normalises and tokenises each text
once for every count.
"""

import time
from collections import Counter, defaultdict

from benchmarks.data import shared
from benchmarks.harness import OURS, Row, call

SETTINGS = {
    "min_letters": 4,
    "min_count": 6,
    "min_prompts": 2,
    "words": 1000,
    "unknown_words": 500,
    "bigrams": 200,
    "trigrams": 200,
}
SETTINGS |= {"min_characters": 1, "output_words": None}


def _outputs(path: str) -> list[tuple[str, str, str]]:
    """Return (model, prompt, output) of all outputs that are not empty."""
    from pollination.analysis.fingerprint.counting import read_outputs

    return [row for row in read_outputs(path) if row[2]]


def _result(fingerprints: dict[str, dict]) -> dict:
    """Return the names of the features, which the row compares."""
    keys = {
        "top_repetitive_words": "word",
        "zero_frequency_words": "word",
        "top_bigrams": "ngram",
        "top_trigrams": "ngram",
    }
    return {
        model: {key: sorted(entry[name] for entry in lists[key]) for key, name in keys.items()}
        for model, lists in fingerprints.items()
    }


def count_ours(path: str) -> dict:
    from pollination.analysis.fingerprint import counting

    rows, stopwords = _outputs(path), counting.snowball_stopwords()
    begun_s = time.perf_counter()
    counter = counting.Counter(SETTINGS, stopwords)
    for row in rows:
        counter.add(*row)
    fingerprints = {
        fingerprint["model_name"]: fingerprint for fingerprint in counter.fingerprints()
    }
    seconds = time.perf_counter() - begun_s
    return {
        "seconds": seconds,
        "amount": sum(fingerprint["words_written"] for fingerprint in fingerprints.values()),
        "result": _result(fingerprints),
    }


def count_peer(path: str) -> dict:
    import unicodedata

    from nltk.tokenize import NLTKWordTokenizer
    from wordfreq import word_frequency

    from pollination.analysis.fingerprint.counting import snowball_stopwords

    rows, tokenizer = _outputs(path), NLTKWordTokenizer()

    def normalise(text: str) -> str:
        composed = unicodedata.normalize("NFKC", text)
        return "".join(
            letter.lower() if unicodedata.category(letter)[0] in "LM" else " "
            for letter in composed
        )

    stopwords = {piece for word in snowball_stopwords() for piece in normalise(word).split()}

    def words(text: str) -> list[str]:
        return [word for word in normalise(text).split() if len(word) >= SETTINGS["min_letters"]]

    def top_words(texts: list[tuple[str, str]]) -> tuple[list[dict], list[dict]]:
        counts, prompts = Counter(), defaultdict(set)
        for _, text in texts:
            counts.update(words(text))
        for prompt, text in texts:
            for word in words(text):
                prompts[word].add(prompt)
        counts = {
            w: c
            for w, c in counts.items()
            if c >= SETTINGS["min_count"] and len(prompts[w]) >= SETTINGS["min_prompts"]
        }
        total = sum(counts.values())
        english = {word: word_frequency(word, "en") for word in counts}
        known = [
            {"word": w, "score": c / total / max(english[w], 1e-12)}
            for w, c in counts.items()
            if english[w] > 0
        ]
        unknown = [
            {"word": w, "corpus_freq": c / total} for w, c in counts.items() if english[w] == 0
        ]
        known.sort(key=lambda entry: (-entry["score"], entry["word"]))
        unknown.sort(key=lambda entry: (-entry["corpus_freq"], entry["word"]))
        return known[: SETTINGS["words"]], unknown[: SETTINGS["unknown_words"]]

    def top_ngrams(texts: list[tuple[str, str]], length: int, top: int) -> list[dict]:
        counts, prompts = Counter(), defaultdict(set)
        for prompt, text in texts:
            tokens = [
                token
                for token in tokenizer.tokenize(normalise(text))
                if token.isalpha() and token not in stopwords
            ]
            for ngram in zip(*(tokens[start:] for start in range(length)), strict=False):
                counts[ngram] += 1
                prompts[ngram].add(prompt)
        kept = [
            {"ngram": " ".join(n), "frequency": c}
            for n, c in counts.items()
            if len(prompts[n]) >= SETTINGS["min_prompts"]
        ]
        return sorted(kept, key=lambda entry: (-entry["frequency"], entry["ngram"]))[:top]

    begun_s = time.perf_counter()
    by_model, fingerprints, amount = defaultdict(list), {}, 0
    for model, prompt, text in rows:
        by_model[model].append((prompt, text))
    for model, texts in by_model.items():
        known, unknown = top_words(texts)
        bigrams, trigrams = (
            top_ngrams(texts, length, SETTINGS[key])
            for length, key in ((2, "bigrams"), (3, "trigrams"))
        )
        fingerprints[model] = {
            "top_repetitive_words": known,
            "zero_frequency_words": unknown,
            "top_bigrams": bigrams,
            "top_trigrams": trigrams,
        }
    seconds = time.perf_counter() - begun_s
    amount = sum(len(normalise(text).split()) for *_, text in rows)
    return {"seconds": seconds, "amount": amount, "result": _result(fingerprints)}


def sides() -> dict:
    path = shared("data/deployed_outputs/outputs.parquet")
    return {
        OURS: call(count_ours, path),
        "the definition with NLTK, Counter, wordfreq": call(count_peer, path),
    }


def same_fingerprints(ours: dict, theirs: dict) -> str:
    return (
        f"{sum(ours[model] == theirs.get(model) for model in ours)} of {len(ours)} fingerprints "
        "equal"
    )


ROWS = [
    Row(
        "fingerprints",
        "words, bigrams and trigrams of the outputs of deployed models",
        "words",
        5.0,
        sides,
        same_fingerprints,
    )
]
