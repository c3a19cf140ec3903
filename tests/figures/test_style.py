"""Axes fit the data, small groups are points, and panels without anything to show are left out."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from pollination.figures import degeneration, style
from pollination.figures.degeneration import PANELS


def axis():
    return style.Figure().subplots()


def test_a_reference_outside_of_the_data_is_named_and_does_not_stretch_the_axis():
    near, far = axis(), axis()
    for one in (near, far):
        one.plot([0, 1], [0.5, 0.6])
    before = far.get_ylim()
    style.reference(far, 0.25, "chance")
    style.reference(near, 0.52, "chance")
    assert far.get_ylim() == before and len(far.lines) == 1 and len(near.lines) == 2
    assert [text.get_text() for text in far.texts] == ["\u2193 chance 0.25"] and not near.texts


@pytest.mark.parametrize(("members", "densities"), [(7, 0), (8, 1)])
def test_a_violin_needs_eight_members(members, densities):
    drawn = axis()
    values = np.linspace(0.4, 0.6, members)
    style.violins(drawn, {0: values}, {0: np.zeros(members, dtype=bool)})
    assert len(drawn.collections) == densities
    assert sum(len(line.get_xdata()) for line in drawn.lines) == members + 1  # and their mean


def degenerate(tmp_path, **found) -> str:
    rows = [
        {"role": "line", "generation": g, "kind": kind, "value": value, "low": value, "high": value}
        for kind, value in (dict.fromkeys(PANELS, 0.0) | found).items()
        for g in (0, 1)
    ]
    degeneration.draw_panels(pd.DataFrame(rows), tmp_path / "a")
    return (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_kinds_of_degenerate_text_that_no_text_has_get_no_panel(tmp_path):
    panels = [
        len(set(re.findall(r'id="(axes_\d+)"', degenerate(tmp_path, **found))))
        for found in ({"any": 0.1, "url": 0.1}, {"any": 0.2, "url": 0.1, "empty": 0.1})
    ]
    assert panels == [1, 2]
    assert (tmp_path / "a.csv").read_text().count("\n") == 2 * len(PANELS) + 1  # the CSV has all


def test_a_figure_with_nothing_to_show_says_why_in_its_file(tmp_path):
    svg = degenerate(tmp_path)
    (said,) = ET.fromstring(svg).iter("{http://purl.org/dc/elements/1.1/}description")
    assert said.text == "The samples hold no degenerate text."


def test_names_are_read_as_they_were_written(tmp_path):
    names = ["NA", "None", "null", "nan", "01", "1", "1.0", "a"]
    rows = pd.DataFrame({"label": names, "experiment": names, "train.tokens": names})
    rows["mean"] = [np.nan, 1.5, np.inf, 2, 3, 4, 5, 6]
    style.write_csv(rows, tmp_path / "rows")
    pd.testing.assert_frame_equal(style.read_csv(f"{tmp_path}/rows.csv"), rows)
