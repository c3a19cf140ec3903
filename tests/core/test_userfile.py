"""A user's own functions: loaded from their file as it is now, and each failure is one line that
names it.
"""

import os

import pytest

from pollination.core import userfile
from pollination.core.job import Stopped


def own(tmp_path, text: str, function: str = "choose") -> str:
    path = tmp_path / "rules.py"
    path.write_text(text)
    return f"{path}:{function}"


def refused(text: str, *arguments) -> str:
    with pytest.raises(ValueError) as caught:
        userfile.load("select.rule", text)(*arguments)
    said = str(caught.value)
    assert said.startswith(f"select.rule: {text}") and "\n" not in said
    return said


def test_a_function_is_called_with_what_it_is_given(tmp_path):
    text = own(
        tmp_path,
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Pair:\n    a: int\n\n\n"
        "def choose(a, b):\n    return Pair(a).a + b\n",
    )
    assert userfile.load("select.rule", text)(3, 4) == 7


def test_a_file_that_changes_within_a_second_is_read_anew(tmp_path):
    for number in (1, 2):
        text = own(tmp_path, f"def choose():\n    return {number}\n")
        os.utime(tmp_path / "rules.py", (0, 0))
        assert userfile.load("select.rule", text)() == number
    assert [path.name for path in tmp_path.iterdir()] == ["rules.py"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def choose():\n    x = 1\n    return x / 0\n", [", line 3: ZeroDivisionError"]),
        ("import json\n\ndef choose():\n    json.loads('{')\n", [", line 4: JSONDecodeError"]),
        ("import sys\n\ndef choose():\n    sys.exit(0)\n", [", line 4: SystemExit"]),
        ("def choose(a):\n    pass\n", [": TypeError", "missing 1 required"]),
        ("x = 1\nimport nowhere_to_be_found\n", [", line 2: ModuleNotFoundError"]),
        ("def choose(:\n", [", line 1: SyntaxError", "invalid syntax"]),
        ("def chose():\n    pass\n", ["does not define a function 'choose'"]),
        ("choose = 3\n", ["does not define a function 'choose'"]),
    ],
)
def test_a_failure_names_file_function_line_and_reason(tmp_path, text, words):
    said = refused(own(tmp_path, text))
    assert all(word in said for word in words), said


def test_a_file_that_is_gone_is_named(tmp_path):
    assert "FileNotFoundError" in refused(f"{tmp_path}/nothing.py:choose")


def test_a_signal_that_stops_the_job_is_no_failure_of_the_function():
    def stopped():
        raise Stopped("by SIGTERM")

    with pytest.raises(Stopped):
        userfile.UserFunction("select.rule", "rules.py:choose", stopped)()
