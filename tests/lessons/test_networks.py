"""What lessons compare a ControlNet with: a UNet that takes the condition itself, and other encoders and starts."""

import importlib
import sys

import pytest
import torch
from torch import nn

from conftest import LESSONS, fill_zeros
from minicontrolnet import ConditionEncoder, lock, seeded, to_eps


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.syspath_prepend(str(LESSONS))
    yield importlib.import_module("lesson.networks")
    for name in [name for name in sys.modules if name.split(".")[0] == "lesson"]:
        del sys.modules[name]


def test_a_conditioned_unet_is_one_with_a_concatenated_input(networks, make_base, inputs, condition):
    """A first conv of patches and features stacked gives the same eps."""
    base, (xt, t, prompt) = lock(make_base()), inputs
    network = fill_zeros(seeded(0, networks.ConditionedUNet, base).double())
    features, encoder = network.condition_encoder(condition), network.unet.encoder
    c, patches = features.shape[1], nn.functional.pixel_unshuffle(xt, 4)
    wide = nn.Conv2d(patches.shape[1] + c, c, 3, padding=1).double()
    with torch.no_grad():
        unit = torch.zeros(c, c, 3, 3, dtype=torch.float64)
        unit[:, :, 1, 1] = torch.eye(c)
        wide.weight.copy_(torch.cat([encoder.conv_in.weight, unit], 1))
        wide.bias.copy_(encoder.conv_in.bias)
        emb, maps = network.unet.embedding(t, prompt), [wide(torch.cat([patches, features], 1))]
        for block in [*encoder.blocks, encoder.middle]:
            maps.append(block(maps[-1], emb))
        *skips, middle = maps
        output = network.unet.decoder(middle, skips, emb)
        ours = network(xt, t, prompt, condition)
    torch.testing.assert_close(ours, to_eps(output, xt, t, base.prediction_type))
    assert not torch.isclose(ours, base(xt, t, prompt)).all()


def test_a_conditioned_unet_leaves_its_base_locked_and_alone(networks, base):
    """It is a copy: all of it is trained, and it shares no storage with the base."""
    network = networks.ConditionedUNet(base)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in base.parameters())
    assert not {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in base.parameters()}


@pytest.mark.parametrize("how", ["learned", "shifted", "stacked", "average", "every fourth"])
def test_every_encoder_starts_at_zero_on_the_grid_of_patches(how, networks):
    features = networks.encoder(how, 8)(torch.rand(2, 1, 64, 64))
    assert features.shape == (2, 8, 16, 16) and not features.any()
    assert (how == "learned") == isinstance(networks.encoder(how, 8), ConditionEncoder)


@pytest.mark.parametrize("std", [None, 0.02])
def test_gaussian_convolutions_have_their_deviation(std, networks, make_base):
    control = seeded(0, networks.gaussian, make_base((64, 64, 64, 64)), std)
    for conv in [*control.zero_convs, control.condition_encoder.layers[-1]]:
        assert conv.weight.std().item() == pytest.approx(std or 64**-0.5, rel=0.1) and not conv.bias.any()
