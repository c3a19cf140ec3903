"""Settings: what params leave out, and what a job reads all the same."""

import pytest

from pollination.core.settings import lean, node_at, schema, whole, with_defaults

NODE = {
    "properties": {
        "old": {"type": "integer", "default": 1},
        "new": {"type": "integer", "default": 5, "absent": 5},
        "flag": {"type": "boolean", "default": False, "absent": False},
        "count": {"type": "integer", "default": 0, "absent": 0},
        "parts": {"type": "array", "items": {"properties": {"new": {"absent": 5}}}},
    },
    "additionalProperties": {"properties": {"new": {"absent": 5}}},
}
FULL = {
    "old": 1,
    "new": 5,
    "flag": False,
    "count": 0,
    "parts": [{"new": 5, "kept": 1}, {"new": 6}],
    "named": {"new": 5},
}


def test_what_params_leave_out_is_read_all_the_same():
    params = lean(FULL, NODE)
    assert params == {"old": 1, "parts": [{"kept": 1}, {"new": 6}], "named": {}}
    assert whole(params, NODE) == FULL


@pytest.mark.parametrize("change", [{"new": 6}, {"flag": True}, {"count": False}, {"flag": 0}])
def test_any_other_value_is_a_param(change):
    (key,) = change
    assert lean(FULL | change, NODE)[key] is change[key]


def test_a_default_that_moves_away_from_absent_is_a_param():
    moved = {"properties": {"new": {"default": 9, "absent": 5}}}
    assert lean(with_defaults({}, moved | {"type": "object"}), moved) == {"new": 9}
    assert whole({}, moved) == {"new": 5}  # a job that was planned before


def test_keys_that_are_there_from_the_first_are_always_params():
    train = node_at(["founders", "{pool}", "train"])
    assert train is schema()["$defs"]["train"]
    settings = with_defaults({}, train)
    assert lean(settings, train).keys() >= {"epochs", "learning_rate", "batch_size"}
