"""Our networks and sampler compared with those of diffusers. Skipped where diffusers is not installed.

Shapes and order are compared with their whole ControlNetModel. Values are compared block by block: in copies of our
networks we replace each block by theirs, with our weights, and everything must stay the same to 1e-4.

These blocks map: the residual block, attention, the downsampling, the sine waves of the time embedding, and their
DDIMScheduler with our schedule. These do not:
- Upsample: ours convolves first and then repeats each place, at a quarter of the cost. Theirs does it the other way round.
- The words: ours are summed into the time embedding. Theirs enter by cross-attention to a text encoder.
- The condition encoder: theirs is that of the released code (3x3 convolutions, SiLU), ours that of the paper's text.
"""

import copy

import pytest
import torch
from torch import nn

from conftest import fill_zeros
from minicontrolnet import (ALPHA_BAR, TIMESTEPS, Control, ControlNet, UNet, ddim_times, detect_edges, guess_mode_weights,
                            guided, held_out, load_base, load_control, sample, to_image)
from minicontrolnet.unet import Attention, Downsample, ResBlock, Upsample

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


# %% Values, with our weights in their blocks


class TheirResBlock(nn.Module):
    """diffusers' residual block with the weights of ours."""

    def __init__(self, ours):
        super().__init__()
        from diffusers.models.resnet import ResnetBlock2D

        c_in, c_out = ours.conv1.in_channels, ours.conv1.out_channels
        self.block = ResnetBlock2D(
            in_channels=c_in, out_channels=c_out, temb_channels=ours.emb.in_features, groups=c_in // 8,
            groups_out=c_out // 8, eps=1e-5, time_embedding_norm="scale_shift", skip_time_act=True).double()
        self.block.norm1.load_state_dict(ours.norm1.state_dict())
        self.block.conv1.load_state_dict(ours.conv1.state_dict())
        self.block.time_emb_proj.load_state_dict(ours.emb.state_dict())
        self.block.conv2.load_state_dict(ours.conv2.state_dict())
        if c_in != c_out:
            self.block.conv_shortcut.load_state_dict(ours.shortcut.state_dict())

    def forward(self, x, emb):
        return self.block(x, emb)


def their_attention(ours):
    """diffusers' attention with the weights of ours: queries, keys and values are parts of our one convolution."""
    from diffusers.models.attention_processor import Attention as Theirs

    c = ours.out.in_channels
    theirs = Theirs(c, heads=c // 32, dim_head=32, bias=True, norm_num_groups=c // 8, eps=1e-5,
                    residual_connection=True).double()
    theirs.group_norm.load_state_dict(ours.norm.state_dict())
    parts = zip((theirs.to_q, theirs.to_k, theirs.to_v), ours.qkv.weight.chunk(3), ours.qkv.bias.chunk(3))
    for linear, weight, bias in [*parts, (theirs.to_out[0], ours.out.weight, ours.out.bias)]:
        linear.weight.data = weight.data[:, :, 0, 0].clone()
        linear.bias.data = bias.data.clone()
    return theirs


class TheirDownsample(nn.Module):
    """diffusers' downsampling with the weights of ours."""

    def __init__(self, ours):
        super().__init__()
        from diffusers.models.resnet import Downsample2D

        self.layer = Downsample2D(ours.in_channels, use_conv=True, padding=1).double()
        self.layer.conv.load_state_dict(ours.state_dict())

    def forward(self, x, emb):
        return self.layer(x)


THEIRS = {ResBlock: TheirResBlock, Attention: their_attention, Downsample: TheirDownsample}


def with_their_blocks(network):
    """A copy of a network in which every block that maps is diffusers'. Returns it and how many were replaced."""
    network = copy.deepcopy(network)
    count = 0
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if type(child) in THEIRS:
                setattr(module, name, THEIRS[type(child)](child))
                count += 1
    return network, count


@pytest.fixture(scope="module")
def ours():
    """The shipped base and edge ControlNet in float64, and two held-out pictures with their noise and edges."""
    base = load_base()
    control = load_control("edge", base).double()
    truth, noise = held_out(2)
    return base.double(), control, truth.prompt, noise.double(), detect_edges(truth.image).double()


@torch.no_grad()
def test_the_13_controls_and_a_prediction_have_the_same_values(ours):
    base, control, prompt, noise, edges = ours
    their_base, in_base = with_their_blocks(base)
    their_control, in_control = with_their_blocks(control)
    assert (in_base, in_control) == (10 + 1 + 3 + 12, 10 + 1 + 3)  # residual blocks, attention, downsamplings, decoder
    t = torch.tensor([100, 900])
    controls = control(noise, t, prompt, edges)
    theirs = their_control(noise, t, prompt, edges)
    for one, other in zip(controls, theirs, strict=True):
        assert one.abs().max() > 1e-3  # a trained network: zeros would agree with anything
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    torch.testing.assert_close(base(noise, t, prompt, controls), their_base(noise, t, prompt, theirs), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_whole_sample_by_their_scheduler_has_the_same_values(ours):
    """25 steps with guidance and control: their networks and their DDIMScheduler, with our schedule."""
    base, control, prompt, noise, edges = ours
    their_base, _ = with_their_blocks(base)
    their_control, _ = with_their_blocks(control)
    model = guided(their_base, prompt, [Control(their_control, edges)], guidance_scale=2.5)
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=TIMESTEPS, clip_sample=True, set_alpha_to_one=True)
    scheduler.alphas_cumprod = ALPHA_BAR
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.num_inference_steps = 25
    xt = noise
    for time in ddim_times(25)[:-1]:
        eps = model(xt, torch.full((len(xt),), time))
        xt = scheduler.step(eps, time, xt, use_clipped_model_output=True).prev_sample
    pictures = sample(base, prompt, noise, [Control(control, edges)], guidance_scale=2.5, steps=25)
    torch.testing.assert_close(to_image(xt), pictures, rtol=0, atol=1e-4)


def test_the_waves_of_the_time_embedding_are_theirs(ours):
    from diffusers.models.embeddings import get_timestep_embedding

    base, t = ours[0], torch.tensor([0, 7, 500, 999])
    waves = get_timestep_embedding(t, base.embedding.size, flip_sin_to_cos=False, downscale_freq_shift=0)
    no_words = torch.zeros(4, 3, dtype=torch.long)
    words = sum(table(torch.zeros(4, dtype=torch.long)) for table in base.embedding.words)
    expected = torch.nn.functional.silu(base.embedding.time(waves.double()) + words)
    torch.testing.assert_close(base.embedding(t, no_words), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_upsampling_does_not_map_because_its_order_differs():
    """Theirs repeats each place and then convolves; ours convolves first. With equal weights they differ."""
    from diffusers.models.resnet import Upsample2D

    generator = torch.Generator().manual_seed(0)
    ours = fill_zeros(Upsample(8, 8))
    theirs = Upsample2D(8, use_conv=True)
    theirs.conv.load_state_dict(ours.state_dict())
    x = torch.randn(1, 8, 4, 4, generator=generator)
    repeated = torch.nn.functional.interpolate(x, scale_factor=2.0)
    torch.testing.assert_close(theirs(x), torch.nn.functional.conv2d(repeated, ours.weight, ours.bias, padding=1))
    assert (theirs(x) - ours(x)).abs().max() > 0.1
