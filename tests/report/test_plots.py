import xml.etree.ElementTree as ET

from freeprm.report.plots import Point, Series, legend, line_plot


def series(*values: float, name: str = "a", **bounds: float) -> Series:
    return Series(
        name=name,
        colour="s0",
        marker="circle",
        points=tuple(Point(x=2**i, y=y, **bounds) for i, y in enumerate(values)),
    )


def plot(*lines: Series) -> ET.Element:
    return ET.fromstring(line_plot("t", lines, x_label="N", y_label="%", log_x=True, x_ticks=(1, 2, 4)))


def test_a_line_is_higher_where_the_value_is():
    points = next(e for e in plot(series(10.0, 30.0, 20.0)).iter("polyline") if "line" in e.attrib["class"]).attrib[
        "points"
    ]
    heights = [float(pair.split(",")[1]) for pair in points.split()]
    assert heights[1] < heights[2] < heights[0]  # the page's y grows downwards


def test_an_interval_is_drawn_as_a_band_inside_the_axes():
    bands = [e for e in plot(series(10.0, 20.0, low=5.0, high=40.0)).iter("polygon") if "band" in e.attrib["class"]]
    assert len(bands) == 1
    heights = [float(pair.split(",")[1]) for pair in bands[0].attrib["points"].split()]
    assert all(0 <= height <= 290 for height in heights)


def test_many_lines_leave_their_bands_out():
    lines = [series(10.0, 20.0, name=name, low=5.0, high=40.0) for name in "abcdef"]
    assert not [e for e in plot(*lines).iter("polygon") if "band" in e.attrib["class"]]


def test_a_name_is_in_the_legend_once_and_escaped():
    assert legend([series(1.0, name="a<b"), series(2.0, name="a<b")]).count("a&lt;b") == 1


def test_a_single_constant_point_is_drawn():
    assert next(plot(series(3.0)).iter("circle")) is not None
