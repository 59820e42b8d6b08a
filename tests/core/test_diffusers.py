"""Our 13 controls against those of diffusers' ControlNetModel; skipped where diffusers is not installed."""

import pytest
import torch

from conftest import fill_zeros
from minicontrolnet import ControlNet, UNet, guess_mode_weights

diffusers = pytest.importorskip("diffusers")


@pytest.fixture
def theirs():
    """A function of guess mode: the 13 maps that their ControlNet gives on a grid of 16x16."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=48, out_channels=48, layers_per_block=2, block_out_channels=(32, 64, 96, 96),
        down_block_types=("DownBlock2D",) * 4, up_block_types=("UpBlock2D",) * 4, norm_num_groups=8,
        attention_head_dim=32, cross_attention_dim=8)
    net = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 32))
    noise, words, edges = torch.randn(2, 48, 16, 16), torch.randn(2, 3, 8), torch.rand(2, 3, 64, 64)

    @torch.no_grad()
    def controls(guess_mode=False, filled=True):
        if filled:
            fill_zeros(net)
        down, middle = net(noise, torch.tensor([300, 700]), words, edges, guess_mode=guess_mode, return_dict=False)
        return [*down, middle]

    return controls


def test_13_controls_of_the_same_shapes_in_the_same_order_zero_at_the_start(theirs):
    base = UNet()
    ours = ControlNet(base)(torch.randn(2, 3, 64, 64), torch.tensor([300, 700]), torch.ones(2, 3).long(),
                            torch.rand(2, 1, 64, 64))
    untrained = theirs(filled=False)
    assert [control.shape for control in ours] == [control.shape for control in untrained]
    assert len(untrained) == 13 and not any(control.any() for control in [*ours, *untrained])


def test_guess_mode_weighs_as_the_released_code_to_two_digits(theirs):
    """Theirs are a line in the logarithm from 0.1 to 1, the released code's powers of 0.825."""
    for plain, guessed, weight in zip(theirs(), theirs(guess_mode=True), guess_mode_weights(), strict=True):
        assert plain.any() and (guessed / plain).nanmedian().item() == pytest.approx(weight, abs=0.005)
