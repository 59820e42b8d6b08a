"""The base: patches, its 13 maps, the seam where controls come in, and what it predicts."""

import pytest
import torch
from torch import nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from conftest import fill_zeros
from minicontrolnet.diffusion import eps_from_v, eps_from_x0, to_eps
from minicontrolnet.training import seeded
from minicontrolnet.unet import PATCH, Attention, Embedding, ResBlock, UNet, Upsample

WIDTHS = (8, 16, 24, 32)


def maps_of(net, inputs):
    xt, t, prompt = inputs
    emb = net.embedding(t, prompt)
    return net.encoder(xt, emb), emb


def with_features_in(net, inputs, features):
    """The network's eps when features are added to the first map of its encoder."""
    xt, t, prompt = inputs
    emb = net.embedding(t, prompt)
    *skips, middle = net.encoder(xt, emb, features)
    return to_eps(net.decoder(middle, skips, emb), xt, t, net.prediction_type)


# %% Patches: the picture as a grid, and back


def test_patches_lose_nothing(inputs):
    """pixel_shuffle after pixel_unshuffle is the picture; a patch is 4 x 4 pixels of 3 colours."""
    xt = inputs[0]
    patches = pixel_unshuffle(xt, PATCH)
    assert PATCH == 4 and patches.shape == (2, 48, 8, 8)
    assert torch.equal(pixel_shuffle(patches, PATCH), xt)
    assert torch.equal(patches[1, :, 2, 5].view(3, 4, 4), xt[1, :, 8:12, 20:24])


def test_encoder_and_decoder_use_patches_so(make_base, inputs):
    """A first conv that copies the 48 numbers and a last one that copies them back: the picture.

    In between are the true layers of encoder and decoder, as far as the first conv's map and
    from the last norm on.
    """
    net, xt = make_base((48, 48, 48, 64)), inputs[0]
    for conv in (net.encoder.conv_in, net.decoder.conv_out):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    maps, emb = maps_of(net, inputs)
    assert torch.equal(pixel_shuffle(maps[0], PATCH), xt)
    last = []
    net.decoder.conv_out.register_forward_pre_hook(lambda module, given: last.extend(given))
    output = net.decoder(maps[-1], maps[:-1], emb)
    assert torch.equal(pixel_unshuffle(output, PATCH), last[0]) and output.shape == xt.shape


# %% The 13 maps and the seam


def test_encoder_gives_13_maps_three_per_level_and_the_middle(make_base):
    """Grids of 16, 8, 4, 2 patches with three maps each, shallow to deep, then the middle."""
    net = make_base(WIDTHS)
    inputs = torch.zeros(2, 3, 64, 64).double(), torch.zeros(2).long(), torch.zeros(2, 3).long()
    maps, _ = maps_of(net, inputs)
    channels = [8, 8, 8, 8, 16, 16, 16, 24, 24, 24, 32, 32, 32]
    sizes = [16] * 3 + [8] * 3 + [4] * 3 + [2] * 4
    assert [tuple(h.shape) for h in maps] == [(2, c, s, s) for c, s in zip(channels, sizes)]
    assert net.encoder.channels == channels


def test_the_default_base_has_the_shape_that_the_lessons_tell():
    """64x64 pictures in and out, and 13 maps from 32 channels of 16x16 to 96 channels of 2x2."""
    net = UNet()
    inputs = torch.zeros(1, 3, 64, 64), torch.zeros(1).long(), torch.zeros(1, 3).long()
    maps, _ = maps_of(net, inputs)
    assert len(maps) == 13 and maps[0].shape == (1, 32, 16, 16) and maps[-1].shape == (1, 96, 2, 2)
    assert net(*inputs).shape == (1, 3, 64, 64)


def test_no_controls_equal_zero_controls(base, inputs):
    """Adding 13 maps of 0 changes no bit."""
    zeros = tuple(torch.zeros_like(h) for h in maps_of(base, inputs)[0])
    assert torch.equal(base(*inputs, controls=None), base(*inputs, controls=zeros))


def test_each_of_the_13_controls_changes_the_output_in_its_own_way(base, inputs):
    """A control at any one place is seen, and no two places are the same."""
    maps, _ = maps_of(base, inputs)
    outputs = [base(*inputs)]
    for i in range(13):
        controls = [torch.full_like(h, float(i == j)) for j, h in enumerate(maps)]
        outputs.append(base(*inputs, controls=tuple(controls)))
    for i, a in enumerate(outputs):
        assert all((a - b).abs().max() > 1e-9 for b in outputs[:i])


def test_controls_are_added_to_the_maps(base, inputs):
    """Controls that cancel all 13 maps leave the decoder with zeros."""
    maps, emb = maps_of(base, inputs)
    cancelled = base(*inputs, controls=tuple(-h for h in maps))
    *skips, middle = [torch.zeros_like(h) for h in maps]
    xt, t, _ = inputs
    assert torch.equal(cancelled, eps_from_x0(base.decoder(middle, skips, emb), xt, t))


@pytest.mark.parametrize("count", [12, 14])
def test_a_wrong_number_of_controls_raises(base, inputs, count):
    """No control is dropped silently."""
    maps, _ = maps_of(base, inputs)
    with pytest.raises(ValueError):
        base(*inputs, controls=tuple([*maps, maps[-1]][:count]))


def test_decoder_and_controls_change_no_map_in_place(base, inputs):
    """The encoder's maps, and the controls, are the same before and after a forward pass."""
    controls, _ = maps_of(base, inputs)
    before, seen = [h.clone() for h in controls], []
    base.encoder.register_forward_hook(lambda module, given, maps: seen.extend(maps))
    base(*inputs, controls=tuple(controls))
    for h, control, expected in zip(seen, controls, before, strict=True):
        assert torch.equal(h, expected) and torch.equal(control, expected)


def test_features_are_added_after_the_first_conv_and_nowhere_else(base, inputs):
    """They reach the output as if the first conv had put them out, and zeros change no bit."""
    features = 0.5 * torch.ones_like(maps_of(base, inputs)[0][0])
    with_features = with_features_in(base, inputs, features)
    assert not torch.isclose(with_features, base(*inputs)).all()
    assert torch.equal(with_features_in(base, inputs, 0 * features), base(*inputs))
    base.encoder.conv_in.bias.data += 0.5
    torch.testing.assert_close(base(*inputs), with_features, rtol=1e-9, atol=1e-9)


# %% The layers


def test_every_parameter_gets_a_gradient(make_base, inputs):
    """No layer is built and then forgotten in forward; on 2x2 places attention has a choice."""
    net, (_, t, prompt) = make_base(), inputs
    xt = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double()
    net(xt, t, prompt).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_fresh_unet_starts_as_its_shortcuts():
    """Untrained residual blocks and attention pass their input on unchanged."""
    middle = seeded(0, UNet, (8, 16, 16, 32), c_emb=16).encoder.middle
    x = torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(middle(x, torch.ones(2, 16)), x)


def test_attention_mixes_places_in_heads_of_32_channels():
    """Each place is the mean of all places' values, weighed by softmax(q k / sqrt(32))."""
    layer = fill_zeros(seeded(0, Attention, 64)).double()
    x = torch.randn(2, 64, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    q, k, v = layer.qkv(layer.norm(x)).flatten(2).chunk(3, dim=1)  # (2, 64, 6) each
    heads = []
    for part in (slice(0, 32), slice(32, 64)):
        weights = (q[:, part].mT @ k[:, part] / 32**0.5).softmax(-1)
        heads.append(v[:, part] @ weights.mT)
    expected = x + layer.out(torch.cat(heads, 1).view_as(x))
    torch.testing.assert_close(layer(x), expected)
    assert not torch.isclose(expected, x).any()


def test_upsampling_repeats_each_place(base):
    """A convolution, and then equal 2x2 blocks."""
    layer = seeded(0, Upsample, 8, 16)
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    convolved = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    assert torch.allclose(layer(x), convolved.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-5)


def test_a_residual_block_written_out():
    """Norm, SiLU, conv; norm, scale and shift by the embedding, SiLU, conv; and the shortcut."""
    block = fill_zeros(seeded(0, ResBlock, 16, 24, 10)).double()
    x = torch.randn(2, 16, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    emb = torch.randn(2, 10, generator=torch.Generator().manual_seed(1)).double()

    def normed(h):
        groups = h.view(2, h.shape[1] // 8, -1)
        var, mean = torch.var_mean(groups, 2, correction=0, keepdim=True)
        return ((groups - mean) / (var + 1e-5).sqrt()).view_as(h)

    def silu(h):
        return h / (1 + (-h).exp())

    with torch.no_grad():
        block.norm1.weight.copy_(torch.linspace(0.5, 2, 16))
        block.norm1.bias.copy_(torch.linspace(-1, 1, 16))
    scale, shift = (emb @ block.emb.weight.T + block.emb.bias).chunk(2, 1)
    h = normed(x) * block.norm1.weight.view(1, -1, 1, 1) + block.norm1.bias.view(1, -1, 1, 1)
    h = nn.functional.conv2d(silu(h), block.conv1.weight, block.conv1.bias, padding=1)
    h = normed(h) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    h = nn.functional.conv2d(silu(h), block.conv2.weight, block.conv2.bias, padding=1)
    shortcut = torch.einsum("oi, bihw -> bohw", block.shortcut.weight[:, :, 0, 0], x)
    torch.testing.assert_close(block(x, emb), shortcut + block.shortcut.bias.view(1, -1, 1, 1) + h)


def test_the_embedding_written_out():
    """Sines and cosines of t at frequencies from 1 to nearly 1e-4, two layers, plus a vector for each word."""
    layer = seeded(0, Embedding, 16).double()
    t, prompt = torch.tensor([3, 700]), torch.tensor([[1, 2, 3], [8, 4, 0]])
    frequency = 1e4 ** (-torch.arange(8).double() / 8)
    angle = t[:, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], 1)
    first, _, last = layer.time
    time = nn.functional.silu(waves @ first.weight.T + first.bias) @ last.weight.T + last.bias
    words = sum(table.weight[prompt[:, i]] for i, table in enumerate(layer.words))
    torch.testing.assert_close(layer(t, prompt), nn.functional.silu(time + words), rtol=1e-4, atol=1e-4)


def test_raw_output_is_read_as_the_network_predicts(make_base, inputs):
    """The same layers, read as eps, v or x0, differ by the conversions alone."""
    xt, t, _ = inputs
    raw = make_base(prediction_type="eps")(*inputs)
    assert torch.equal(make_base(prediction_type="v")(*inputs), eps_from_v(raw, xt, t))
    assert torch.equal(make_base(prediction_type="x0")(*inputs), eps_from_x0(raw, xt, t))
    assert UNet((8, 8, 8, 32)).prediction_type == "x0"


def test_float64_forward_agrees_with_float32(make_base, inputs):
    """A network in float64 stays in float64, and float32 is its rounding."""
    xt, t, prompt = inputs
    fine = make_base(prediction_type="eps")(xt, t, prompt)
    coarse = make_base(prediction_type="eps", dtype=torch.float32)(xt.float(), t, prompt)
    assert fine.dtype == torch.float64 and coarse.dtype == torch.float32
    assert (fine - coarse).abs().max() < 1e-3 * fine.abs().max()


def test_time_and_each_word_matter(make_base, inputs):
    """Another time, or another word at any of the three places, gives another output."""
    net, (xt, t, prompt) = make_base(prediction_type="eps"), inputs
    output = net(xt, t, prompt)
    assert not torch.isclose(net(xt, t + 100, prompt), output).all()
    for word in range(3):
        other = prompt.clone()
        other[:, word] = 1 - (other[:, word] == 1).long()
        assert not torch.isclose(net(xt, t, other), output).all()


def test_pictures_of_a_batch_do_not_see_each_other(base, inputs):
    """A batch gives what its pictures give one by one."""
    xt, t, prompt = inputs
    one_by_one = [base(xt[i : i + 1], t[i : i + 1], prompt[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(base(*inputs), torch.cat(one_by_one), rtol=1e-9, atol=1e-9)
