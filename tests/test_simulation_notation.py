"""promtool's notation for series: what every form stands for, and every slip by its place."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model import GapReason
from autoscaler.simulation.notation import LONGEST, read_series

NO_DATA, STALE = GapReason.NO_DATA, GapReason.STALE


@pytest.mark.parametrize(
    ("text", "values"),
    [
        pytest.param("7", [7], id="one value"),
        pytest.param("7 8\n9", [7, 8, 9], id="values apart by whitespace"),
        pytest.param("7x3", [7, 7, 7, 7], id="as in promtool x repeats beyond the first"),
        pytest.param("7x0", [7], id="no repetition"),
        pytest.param("0+10x3", [0, 10, 20, 30], id="steps up"),
        pytest.param("30-10x3", [30, 20, 10, 0], id="steps down"),
        pytest.param("-2+1x2", [-2, -1, 0], id="a negative start"),
        pytest.param("-2-1x2", [-2, -3, -4], id="a negative start, downwards"),
        pytest.param("0.1+0.1x2", ["0.1", "0.2", "0.3"], id="decimals are exact"),
        pytest.param("1e3+1e2x1", [1000, 1100], id="exponents"),
        pytest.param("1e-3x1", ["0.001", "0.001"], id="a negative exponent is no step"),
        pytest.param("_ 5", [NO_DATA, 5], id="a gap"),
        pytest.param("_x3 5", [NO_DATA, NO_DATA, NO_DATA, 5], id="a gap counts as many as it says"),
        pytest.param("stale", [STALE], id="stale by its own name"),
        pytest.param("NaN Inf -Inf", [GapReason.NOT_A_NUMBER, GapReason.INFINITE, GapReason.INFINITE], id="no numbers"),
        pytest.param("4000+100x2 _x1 5873x1", [4000, 4100, 4200, NO_DATA, 5873, 5873], id="one after the other"),
    ],
)
def test_a_series_stands_for_its_values(text: str, values: list[object]) -> None:
    found, slips = read_series(text)
    assert slips == ()
    assert list(found) == [value if isinstance(value, GapReason) else Fraction(value) for value in values]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        pytest.param("", 1, "has no value", id="nothing"),
        pytest.param("5 7+1", 3, "'7+1' steps, and does not say how often", id="a step without a count"),
        pytest.param("5x", 2, "'5x' does not say how often", id="x without a count"),
        pytest.param("5 6x-1", 4, "'6x-1' does not say how often", id="a negative count"),
        pytest.param("5x1.5", 4, "'5x1.5' is not a value", id="a broken count"),
        pytest.param("5*3", 2, "'5*3' repeats by '*'", id="times by a star"),
        pytest.param("5,6", 2, "'5,6' has a comma", id="commas"),
        pytest.param("1 2 many", 5, "'many' is not a value", id="a word"),
        pytest.param("4 000", None, None, id="a blank within a number makes two, which cannot be known"),
        pytest.param("5x99999999999", 12, "'5x99999999999' does not say how often", id="a count beyond all measure"),
        pytest.param("1x600000 1x600000", 10, "makes more than 1,000,000 values", id="too many values"),
        pytest.param("1x999999999", 1, "makes more than 1,000,000 values", id="too many at once, and quickly told"),
        pytest.param("0x10", None, None, id="not hexadecimal: zero, and ten more"),
    ],
)
def test_a_slip_is_told_with_its_place(text: str, column: int | None, what: str | None) -> None:
    _, slips = read_series(text)
    assert [(slip.column, slip.what) for slip in slips] == ([] if what is None else [(column, what)])
    assert all(slip.mend for slip in slips)


def test_every_slip_is_told_at_once() -> None:
    _, slips = read_series("5 7+1 six 8 9x")
    assert [slip.column for slip in slips] == [3, 7, 14]


@given(st.text(max_size=60))
def test_whatever_is_written_is_read_or_told(text: str) -> None:
    values, slips = read_series(text)
    assert values or slips
    assert len(values) <= LONGEST + 1


@given(
    st.lists(
        st.tuples(
            st.decimals(-1000, 1000, places=2, allow_nan=False), st.decimals(-9, 9, places=1), st.integers(0, 20)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_series_written_out_is_read_as_meant(runs: list[tuple[object, object, int]]) -> None:
    text, expected = [], []
    for start, step, times in runs:
        text.append(f"{start}{step:+}x{times}")
        expected += [Fraction(str(start)) + Fraction(str(step)) * number for number in range(times + 1)]
    assert read_series(" ".join(text)) == (tuple(expected), ())
