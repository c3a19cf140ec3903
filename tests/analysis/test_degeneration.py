"""Degenerate spans: what each kind finds and leaves alone, and time that stays linear in hostile
text.
"""

import time
from itertools import pairwise

import pytest

from pollination.analysis.degeneration import KINDS, english, find, shares

WORDS = {
    "this",
    "is",
    "the",
    "cat",
    "sat",
    "on",
    "mat",
    "he",
    "bought",
    "apples",
    "pears",
    "plums",
    "figs",
    "dates",
    "nuts",
    "and",
    "grapes",
    "then",
    "went",
    "home",
    "it",
    "was",
    "very",
    "good",
    "see",
    "more",
    "morning",
}


def found(text: str, prompt: str = "", vocabulary=WORDS) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in find(text, vocabulary, prompt)]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("the cat sat on the mat", []),
        (
            "then it was good: the cat sat the cat sat the cat sat on the mat",
            [("repetition", "the cat sat the cat sat the cat sat")],
        ),
        ("it was very very very good", []),
        ("it was very very very very good", [("repetition", "very very very very")]),
        ("the cat sat the cat sat on", []),
        ("see https://a.example/x%20y?id=3 then", [("url", "https://a.example/x%20y?id=3")]),
        ("see www . this . com / mat then", [("url", "www . this . com / mat")]),
        ("see UJPOZKfMz7g3dBkWc69Y then", [("url", "UJPOZKfMz7g3dBkWc69Y")]),
        ("the cat/mat was 3.5 % on 12/05/2010 (see 2)", []),
        (
            "he bought apples, pears, plums, figs, dates, nuts, grapes. Then he went home",
            [("enumeration", "he bought apples, pears, plums, figs, dates, nuts, grapes")],
        ),
        ("he bought apples, pears, plums and nuts, then went home", []),
        (
            "1. cat\n2. mat\n3. figs\n4. nuts\n5. dates\n6. pears\n7. plums",
            [("enumeration", "cat\n2. mat\n3. figs\n4. nuts\n5. dates\n6. pears\n7. plums")],
        ),
        (
            "it was 1990 1991 1992 1993 1994 1995 then",
            [("enumeration", "1990 1991 1992 1993 1994 1995")],
        ),
        ("it was 1924 on 1,234 mat", []),
        ("the zorble sat", [("unknown", "zorble")]),
        ("the Cat’s mat, x sat", [("unknown", "Cat’s")]),
        ("", []),
    ],
)
def test_what_is_degenerate_and_what_is_not(text, spans):
    assert found(text) == spans


def test_a_phrase_that_stood_before_is_marked_where_it_comes_again():
    phrase = "he bought apples then went home and it was very good on the mat"
    text = f"{phrase} . this is more . {phrase}"
    assert found(text) == [("repetition", text[text.rindex("he bought") :])]
    assert found(f"{phrase} . this is more . he bought apples then went home") == []


def test_words_are_judged_whole_and_with_the_prompt():
    assert found("rning was good", "this mo") == []  # the prompt ends inside the word
    assert found("rble sat", "the zo") == [("unknown", "rble")]
    assert found("the zorble sat", "see a Zorble") == []  # it comes from the prompt
    assert found("the cat sat on the morb") == []  # the end may have cut it
    assert "zorble" not in english() and "morning" in english()


def test_signs_of_scripts_without_spaces_are_words():
    assert found("我在家 。", vocabulary={"我", "家"}) == []  # single signs are not judged
    assert found("домик стоит", vocabulary={"стоит"}) == [("unknown", "домик")]


def test_shares_are_of_characters_and_kinds_do_not_overlap():
    text = "see http://a.com/b http://a.com/b http://a.com/b http://a.com/b zorble it was good"
    spans = find(text, WORDS)
    assert all(one.end <= other.start for one, other in pairwise(spans))
    share = shares(text, spans)
    assert share["url"] == pytest.approx(4 * 14 / len(text)) and share["unknown"] == pytest.approx(
        6 / len(text)
    )
    assert share["any"] == pytest.approx(sum(share[kind] for kind in KINDS)) and share["empty"] == 0
    assert shares(" \n", find(" \n", WORDS)) == dict.fromkeys((*KINDS, "any"), 0.0) | {"empty": 1.0}


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a ",
        "% 41",
        "www . ",
        "1 ",
        ",",
        "http : / ",
        "a.b",
        "%4",
        " \t",
        "ab-",
        "[?",
        "'a",
        "x@",
    ],
)
def test_time_is_linear_in_what_a_model_may_write(unit):
    begun = time.process_time()
    find(unit * (40_000 // len(unit)), WORDS)
    assert time.process_time() - begun < 5
