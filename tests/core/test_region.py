"""Control inside a region only: mask_controls, and Control.region in sample()."""

import pytest
import torch

from minicontrolnet import Problem, mask_controls, sample

WORDS = ["red star on blue", "circle"]


@pytest.fixture
def left():
    """A region (1, 1, 32, 32): the left half."""
    region = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    region[..., :16] = 1
    return region


def test_controls_are_kept_inside_a_region_only(trained, inputs, condition, left):
    controls = trained(*inputs, condition)
    masked = mask_controls(controls, left)
    for before, after in zip(controls, masked, strict=True):
        width = before.shape[-1]
        if width == 1:
            assert torch.equal(after, before / 2), "half of the only cell is inside"
        else:
            assert torch.equal(after[..., : width // 2], before[..., : width // 2])
            assert not after[..., width // 2 :].any()


def test_a_region_of_ones_changes_nothing_and_one_of_zeros_switches_control_off(base, trained, inputs, condition):
    noise = inputs[0]
    ones = torch.ones(1, 1, 32, 32, dtype=torch.float64)

    def pictures(*controls):
        return sample(base, WORDS, noise, controls, steps=2)

    controlled = pictures((trained, condition))
    assert torch.equal(pictures((trained, condition, 1.0, ones)), controlled)
    assert torch.equal(pictures((trained, condition, 1.0, 0 * ones)), pictures())
    assert not torch.equal(controlled, pictures())


def test_each_picture_may_have_its_own_region(base, trained, inputs, condition, left):
    """Also when the pictures are computed one at a time."""
    regions = torch.cat([left, 1 - left])
    together = sample(base, WORDS, inputs[0], [(trained, condition, 1.0, regions)], steps=2)
    one_by_one = sample(base, WORDS, inputs[0], [(trained, condition, 1.0, regions)], steps=2, batch=1)
    swapped = sample(base, WORDS, inputs[0], [(trained, condition, 1.0, regions.flip(0))], steps=2)
    assert torch.allclose(together, one_by_one, rtol=0, atol=1e-9)
    assert not torch.allclose(together, swapped, rtol=0, atol=1e-3)


def test_a_region_that_does_not_fit_is_one_sentence(base, trained, inputs, condition):
    with pytest.raises(Problem, match=r"a region has the shape \(1, 1, 8, 8\)"):
        sample(base, WORDS, inputs[0], [(trained, condition, 1.0, torch.ones(1, 1, 8, 8))], steps=2)
