"""Scales and geometry: inverse of the mapping by hand, everything inside the picture, numbers as people read them."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gguf_golf.report import plots, words
from gguf_golf.report.axes import axes
from gguf_golf.report.merge import merge
from gguf_golf.report.results import Results, read
from gguf_golf.report.retained import shares
from gguf_golf.report.scale import Scale, fit
from gguf_golf.report.typemap import level, type_map
from tests.report.documents import base, document, ladder, quant


def load(*models: dict[str, object]) -> Results:
    return merge([read(document(*models))])


def test_scale() -> None:
    linear = Scale(10, 20, 100, 300)
    assert (linear(10), linear(15), linear(99)) == (100, 200, 300)
    assert linear.ticks() == [10, 12.5, 15, 17.5, 20]
    log = Scale(0.001, 10, 0, 400, log=True)
    assert (log(0.001), log(0.1), log(10), log(0), log(-3)) == (0, 200, 400, 0, 0)
    assert log.ticks() == [0.001, 0.01, 0.1, 1, 10]
    assert Scale(1, 20, 0, 1, log=True).ticks() == [1, 2, 5, 10, 20]


@given(st.lists(st.floats(-1e90, 1e90), min_size=1, max_size=9), st.booleans())
def test_any_values_fit(values: list[float], log: bool) -> None:
    scale = fit(values, 300, 20, log=log)
    assert all(20 <= scale(value) <= 300 for value in values)
    assert len(scale.ticks()) < 60


def test_points_lie_where_their_values_are() -> None:
    results = load(*ladder())
    plot = plots.pareto(results, axes(results)[0])
    by_name = {point.tip.split("\n")[0].removeprefix("golf-").removesuffix(".gguf"): point for point in plot.points}
    assert by_name["tiny"].x < by_name["tcq3"].x < by_name["q4"].x < by_name["q8"].x
    # KLD .02 against .04 and 1 against .04 on one logarithmic scale: distances are as their logarithms
    one = by_name["q4"].y - by_name["tcq3"].y
    other = by_name["tcq3"].y - by_name["tiny"].y
    assert other / one == pytest.approx(math.log(25) / math.log(2), rel=0.02)
    assert [name for name, point in by_name.items() if point.dominated] == ["wasteful"]
    assert [name for name, point in by_name.items() if point.runs_in == "ours"] == ["tcq3"]
    assert plot.frontier.count(",") == 4
    assert {point.label for point in plot.points} == set(by_name)


def test_extreme_values_do_not_break_a_plot() -> None:
    odd = quant("odd", 1, 1e-300, ppl=1e99, ln_ppl_ratio_se=1e50, top1=-4.0, kld_se=1e99)
    zero = quant("zero", 10**18, 0.0, kld_mean=-1e-9, kld_se=0.0)
    results = load(base(), odd, zero)
    for axis in axes(results):
        for point in plots.pareto(results, axis).points:
            assert 0 <= point.x <= plots.WIDTH and 0 <= point.y <= plots.HEIGHT


def test_distribution() -> None:
    results = load(*ladder())
    plot = plots.distribution(results)
    assert plot is not None
    assert [hill.label for hill in plot.hills] == ["tiny", "tcq3", "wasteful", "q4", "q8"]
    assert plots.distribution(load(base(), quant("q4", 10, 0.1, kld_histogram=[1, 2]))) is None


def test_names_fit_beside_the_hills_and_numbers_below_them() -> None:
    spread = [0] * (len(document()["kld_edges"]) - 1)
    spread[0] = spread[-1] = 1
    results = load(base(), quant("a-name-that-is-longer-than-any-plot-is-wide", 10, 0.1, kld_histogram=spread))
    plot = plots.distribution(results)
    assert plot is not None
    assert all(0.58 * plots.FONT * len(hill.label) <= plot.left - 8 for hill in plot.hills)
    gaps = [other.at - one.at for one, other in pairwise(plot.ticks)]
    assert min(gaps) > 0.58 * plots.FONT * max(len(tick.text) for tick in plot.ticks)


def test_a_model_in_another_engine_is_drawn_as_such_and_retains_what_it_predicts() -> None:
    peer = quant("peer", 9_000_000, 0.01, tensors=[])
    results = load(*ladder(), peer)
    drawn = {point.label: point.runs_in for point in plots.pareto(results, axes(results)[0]).points}
    assert drawn["peer"] == "another" and drawn["q4"] == "any"
    predicted = next(share for share in shares(results, axes(results)) if share.title == "Text prediction")
    assert predicted.values[-1] is not None


def test_type_map() -> None:
    results = load(*ladder())
    tcq3 = results.quants[2]
    found = type_map(tcq3)
    assert found is not None
    assert len(found.cells) == 4 and [name for _, name in found.rows] == ["attn_q", "ffn_down"]
    assert {cell.level for cell in found.cells} == {4}  # half a byte a weight
    assert [tensor.name for tensor, _ in found.outside] == ["token_embd.weight"]
    assert [(share.type, share.tensors) for share in found.types] == [("tcq3", 4), ("q6_k", 1), ("f32", 1)]
    assert sum(share.bytes for share in found.types) == sum(tensor.bytes for tensor in tcq3.tensors)
    assert [level(bpw) for bpw in (1.125, 2.0625, 3.4375, 4.5, 5.5, 6.5625, 8.5, 16, 32)] == [1, 2, 3, 4, 5, 7, 8, 9, 9]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (words.size(999), "999 bytes"),
        (words.size(999_999), "1.00 MB"),
        (words.size(1_234_567_890), "1.23 GB"),
        (words.number(0.0123456), "0.0123"),
        (words.number(1234.5), "1,234"),
        (words.number(9.996), "10.0"),
        (words.number(3.21e-7), "3.2e-7"),
        (words.number(None), "–"),
        (words.measured(0.02134, 0.0004), "0.02134 ± 0.00040"),
        (words.measured(0.931, 0.0123, 100), "93.1 ± 1.2"),
        (words.measured(20.5, None), "20.5"),
        (words.cut(0.5), "halves the damage"),
        (words.cut(0.26), "cuts the damage to a quarter"),
        (words.cut(0.7), "takes away 30% of the damage"),
        (words.cut(0.001), "leaves less than a tenth of the damage"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert text == expected
