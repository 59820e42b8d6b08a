"""How certain a difference is: Student's intervals against tables, by hand, and by counting."""

import math

import pytest
import torch

from minicontrolnet.measure.intervals import Paired, paired, student_t

NAN, INF = math.nan, math.inf



@pytest.mark.parametrize("freedom, t", [(1, 12.706), (2, 4.303), (5, 2.571),
                                        (30, 2.042)])
def test_student_t_by_the_tables(freedom, t):
    """The two-sided 95 % quantiles that every table of Student's distribution has."""
    assert student_t(freedom) == pytest.approx(t, abs=5e-4)


@pytest.mark.parametrize("freedom", [10**4, 10**6, 10**8, 10**9, 10**12])
def test_student_t_of_large_samples_is_that_of_the_normal_distribution(freedom):
    """The quantile of the normal distribution is 1.959964, and at 10,000 degrees of freedom 1.960201."""
    expected = 1.959964 if freedom > 10**4 else 1.960201
    assert student_t(freedom) == pytest.approx(expected, abs=6e-5)


def test_all_of_the_distribution_has_no_bound():
    assert student_t(5, 1) == student_t(10**6, 1.0) == INF


@pytest.mark.parametrize("share, t", [(0.8, 1.476), (0.9, 2.015), (0.99, 4.032)])
def test_student_t_of_other_shares(share, t):
    """With 5 degrees of freedom."""
    assert student_t(5, share) == pytest.approx(t, abs=5e-4)


def test_paired_by_hand():
    """1, 2, 3 have the mean 2 and the deviation 1: 2 -+ 4.303 / sqrt(3)."""
    interval = paired([1.0, 2.0, 3.0])
    assert interval == pytest.approx((2 - 2.484, 2, 2 + 2.484), abs=1e-3)
    assert paired(torch.tensor([[1.0], [2.0], [3.0]])) == interval
    wide = paired([0.0, 1.0])  # 12.706 times the standard error, which is a half
    assert wide == pytest.approx((0.5 - 6.353, 0.5, 0.5 + 6.353), abs=1e-3)


@pytest.mark.parametrize("differences, verdict", [
    ([1.0, 1.1, 0.9], "shown"), ([-1.0, -1.1, -0.9], "contradicted"),
    ([1.0, 2.0, 3.0], "undecided"), ([0.0, 0.0], "undecided"),
    ([0.2, 0.2], "shown"),
])
def test_a_claim_is_decided_if_its_interval_leaves_out_0(differences, verdict):
    """Above 0 it is shown, below 0 contradicted, with 0 inside undecided."""
    assert paired(differences).verdict == verdict


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_difference_that_is_not_finite_decides_nothing(bad):
    """However clear the others are; two infinities of opposite signs, too."""
    for differences in ([1.0, 1.1, 0.9, 1.0, bad], [-1.0, -1.1, bad], [INF, -INF]):
        interval = paired(differences)
        assert interval.verdict == "undecided"
        assert (interval.low, interval.high) == (-INF, INF)
        assert math.isnan(interval.mean)


def test_95_of_100_intervals_hold_the_mean():
    """Of 2000 sets of 4 normal numbers, 95 % have 0 inside (5 standard errors)."""
    sets = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)).double()
    half = student_t(3) * sets.std(1) / 2
    inside = (sets.mean(1).abs() < half).double().mean().item()
    assert inside == pytest.approx(0.95, abs=0.025)
    low, mean, high = paired(sets[0])
    assert high - mean == pytest.approx(half[0].item()) == pytest.approx(mean - low)
    assert Paired(0.1, 0.2, 0.3).verdict == "shown"
