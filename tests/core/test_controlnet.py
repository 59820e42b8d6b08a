"""What the paper says of a ControlNet: locked base, trainable copy, zero convs (Sec. 3)."""

import pytest
import torch
from torch import nn
from torch.nn.functional import pixel_unshuffle

from conftest import fill_zeros
from minicontrolnet.errors import Problem
from minicontrolnet.controlnet import ConditionEncoder, ControlNet, lock, zero_conv, zero_conv_gradients
from minicontrolnet.sampling import sample
from minicontrolnet.training import Training, control_loss, seeded
from minicontrolnet.unet import PATCH


def loss_of(base, control, inputs, condition):
    """Some loss of the controlled prediction: its square distance to 1."""
    xt, t, prompt = inputs
    return (base(xt, t, prompt, control(xt, t, prompt, condition)) - 1).square().mean()


def awake(module):
    """The names of the parameters whose last gradient has an entry other than 0."""
    return {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b))


# %% Before training: Eq. 3


def test_untrained_prediction_is_the_bases_own(base, control, inputs, condition):
    """All 13 controls are 0 and the prediction is the base's to the last bit."""
    xt, t, prompt = inputs
    controls = control(xt, t, prompt, condition)
    copied = control.encoder(xt, control.embedding(t, prompt))
    assert all(h.abs().max() > 0.1 for h in copied)  # the copy itself is anything but 0
    assert not any(c.any() for c in controls)
    assert torch.equal(base(xt, t, prompt, controls), base(xt, t, prompt))


@pytest.mark.parametrize("scale", [1.0, 7.5])
@pytest.mark.parametrize("in_both", [False, True])
def test_untrained_sample_is_the_bases_own(base, control, inputs, condition, scale, in_both):
    """Five DDIM steps, with and without guidance, give the base's picture to the last bit."""
    noise, _, prompt = inputs
    free = sample(base, prompt, noise, (), scale, steps=5)
    controlled = sample(base, prompt, noise, [(control, condition)], scale, 5, in_both=in_both)
    assert torch.equal(controlled, free) and 0.05 < free.mean() < 0.95


def test_untrained_condition_encoder_gives_zeros_from_live_layers(control, condition):
    """Only the last of its layers is 0, so the condition waits right behind it."""
    *before, last = control.condition_encoder.layers
    assert nn.Sequential(*before)(condition).any()
    assert not last.weight.any() and not last.bias.any()
    assert control.condition_encoder(condition).shape == (2, 8, 8, 8)


def test_both_convolutions_of_the_condition_encoder_start_as_gaussians():
    """Their variance is He's 2 / fan_in: 1 / 8 c and 1 / 128. The layer after them is 0 (Sec. 3.2)."""
    layers = seeded(0, ConditionEncoder, 3, 64).layers
    first, second, last = (layer for layer in layers if isinstance(layer, nn.Conv2d))
    for conv, fan_in in ((first, 3 * 16), (second, 16 * 16)):
        values = conv.weight.detach().flatten()
        assert values.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
        fourth = ((values - values.mean()) / values.std()).pow(4).mean().item()
        assert fourth == pytest.approx(3, abs=0.7), "a uniform distribution has 1.8"
    assert not last.weight.any() and sum(isinstance(layer, nn.ReLU) for layer in layers) == 2


def test_the_condition_encoder_layer_by_layer(control, condition):
    """Two convolutions of stride 2, a ReLU after each, and a 1x1 convolution."""
    encoder = fill_zeros(control.condition_encoder)
    h = condition
    for conv in (encoder.layers[0], encoder.layers[2]):
        h = nn.functional.conv2d(h, conv.weight, conv.bias, stride=2, padding=1).clamp(min=0)
    last = encoder.layers[4]
    expected = torch.einsum("oi, bihw -> bohw", last.weight[:, :, 0, 0], h) + last.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(encoder(condition), expected)
    assert (h == 0).any() and h.any()


# %% The copy and the lock: Fig. 2


def test_copy_equals_the_base_and_shares_no_storage(make_base):
    """Encoder, middle and embedding start with the base's values in memory of their own."""
    base = lock(make_base())
    control = ControlNet(base)
    for name in ("encoder", "embedding"):
        copied, source = getattr(control, name).state_dict(), getattr(base, name).state_dict()
        assert copied.keys() == source.keys() and equal(list(copied.values()), list(source.values()))
    pointers = {p.data_ptr() for p in base.parameters()}
    assert not pointers & {p.data_ptr() for p in control.parameters()}
    assert len(pointers) == len(list(base.parameters()))


def test_copy_is_trainable_and_the_base_stays_locked(base, control):
    """Copying a locked base unlocks the copy and nothing else."""
    assert all(p.requires_grad for p in control.parameters())
    assert not any(p.requires_grad for p in base.parameters())


def test_changing_the_copy_leaves_the_base_alone(base, control, inputs):
    """Overwriting every number of the ControlNet changes no prediction of the base."""
    before = base(*inputs)
    with torch.no_grad():
        for parameter in control.parameters():
            parameter.fill_(3.0)
    assert torch.equal(base(*inputs), before)


def test_locked_is_not_detached(base, inputs):
    """No locked parameter wants a gradient, but the input gets its own."""
    xt, t, prompt = inputs
    xt = xt.clone().requires_grad_()
    base(xt, t, prompt).sum().backward()
    assert xt.grad.abs().min() > 0
    assert not base.training and all(p.grad is None for p in base.parameters())


def test_locked_encoder_builds_no_graph(base, inputs):
    """Its 13 maps need no memory for a backward pass (Sec. 3.1)."""
    xt, t, prompt = inputs
    assert all(h.grad_fn is None for h in base.encoder(xt, base.embedding(t, prompt)))


def test_gradients_reach_all_13_controls_through_the_locked_decoder(base, trained, inputs, condition):
    """Each control gets a gradient other than 0, and no parameter of the base gets any."""
    xt, t, prompt = inputs
    controls = tuple(c.detach().requires_grad_() for c in trained(xt, t, prompt, condition))
    (base(xt, t, prompt, controls) - 1).square().mean().backward()
    assert all(c.grad.any() for c in controls)
    assert all(p.grad is None for p in base.parameters())


def test_training_leaves_the_base_byte_for_byte(make_base):
    """After three steps every tensor of the base is as before, and the ControlNet is not."""
    base = lock(make_base((8, 8, 8, 32), torch.float32))
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    control = ControlNet(base)
    for _ in Training(control, control_loss(base, "edge"), 3, lr=1e-3):
        pass
    after = base.state_dict()
    assert all(tensor.numpy().tobytes() == after[name].numpy().tobytes()
               for name, tensor in before.items())
    assert all(p.grad is None and not p.requires_grad for p in base.parameters())
    assert not torch.equal(control.encoder.conv_in.weight, base.encoder.conv_in.weight)


# %% Zero convs: Eq. 2 and the order in which the parts wake


def test_gradients_of_a_zero_conv_by_hand():
    """At weight 0: dW is the sum of input times upstream gradient, db its sum, dinput 0."""
    generator = torch.Generator().manual_seed(0)
    x, upstream = torch.randn(2, 2, 4, 5, 6, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    conv = zero_conv(4).double()
    output = conv(x)
    output.backward(upstream)
    by_hand = torch.zeros(4, 4, dtype=torch.float64)
    for o in range(4):
        for i in range(4):
            by_hand[o, i] = (upstream[:, o] * x.detach()[:, i]).sum()
    assert not output.any() and by_hand.abs().min() > 0
    torch.testing.assert_close(conv.weight.grad[:, :, 0, 0], by_hand)
    torch.testing.assert_close(conv.bias.grad, upstream.sum((0, 2, 3)))
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_gradients_in_closed_form_are_those_of_autograd(weight):
    """zero_conv_gradients is right for any weight; only at 0 does no gradient pass to the input."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64).requires_grad_()
    upstream = torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64)
    conv = nn.Conv2d(3, 4, 1).double()
    with torch.no_grad():
        conv.weight.copy_(weight * torch.randn(4, 3, 1, 1, generator=generator))
    conv(x).backward(upstream)
    dw, db, dx = zero_conv_gradients(x.detach(), conv.weight.detach()[:, :, 0, 0], upstream)
    torch.testing.assert_close(conv.weight.grad[:, :, 0, 0], dw)
    torch.testing.assert_close(conv.bias.grad, db)
    torch.testing.assert_close(x.grad, dx)
    assert dw.all() and dx.any() == (weight != 0)


def test_zero_convs_grow_from_the_first_step(base, control, inputs, condition):
    """One step of an optimiser moves weight and bias of all 13 zero convs."""
    optimiser = torch.optim.AdamW(control.parameters(), lr=1e-3)
    loss_of(base, control, inputs, condition).backward()
    optimiser.step()
    assert all(conv.weight.any() and conv.bias.any() for conv in control.zero_convs)
    assert any(c.any() for c in control(*inputs, condition))


def test_the_order_of_waking(base, control, inputs, condition):
    """First the output zero convs learn, then the copy and the input zero conv, then the encoder E."""
    names = {name for name, _ in control.named_parameters()}
    outer = {name for name in names if name.startswith("zero_convs.")}
    inner = {name for name in names if name.startswith("condition_encoder.layers.")}
    gate = {name for name in inner if name.startswith("condition_encoder.layers.4.")}
    optimiser = torch.optim.SGD(control.parameters(), lr=0.1)
    woken = []
    for _ in range(3):
        optimiser.zero_grad()
        loss_of(base, control, inputs, condition).backward()
        woken.append(awake(control))
        optimiser.step()
    assert woken == [outer, (names - inner) | gate, names]
    assert len(outer) == 26 and len(gate) == 2 and len(inner) == 6


# %% The 13 controls


def test_controls_have_the_shapes_of_the_maps_they_are_added_to(base, trained, inputs, condition):
    """Shallow to deep, the middle last, none of them 0."""
    xt, t, prompt = inputs
    maps = base.encoder(xt, base.embedding(t, prompt))
    controls = trained(xt, t, prompt, condition)
    assert [c.shape for c in controls] == [h.shape for h in maps] and len(controls) == 13
    assert all(c.any() for c in controls)


def test_control_i_comes_from_zero_conv_i(base, control, inputs, condition):
    """With weight 0 and bias i, control i is i everywhere."""
    for i, conv in enumerate(control.zero_convs):
        nn.init.constant_(conv.bias, i)
    for i, c in enumerate(control(*inputs, condition)):
        assert torch.equal(c, torch.full_like(c, i))


def test_zero_conv_i_reads_map_i(base, control, inputs, condition):
    """With the identity as weight, control i is the copy's map i, which is still the base's."""
    xt, t, prompt = inputs
    for conv in control.zero_convs:
        nn.init.dirac_(conv.weight)
    maps = base.encoder(xt, base.embedding(t, prompt))
    for c, h in zip(control(xt, t, prompt, condition), maps):
        torch.testing.assert_close(c, h)


def test_condition_is_added_after_the_first_conv_and_nowhere_else(trained, inputs, condition):
    """The copy of a condition c is the encoder fed with conv_in(xt) + E(c)."""
    xt, t, prompt = inputs
    emb, e = trained.embedding(t, prompt), trained.condition_encoder(condition)
    h = trained.encoder.conv_in(pixel_unshuffle(xt, PATCH)) + e
    maps = [h]
    for block in trained.encoder.blocks:
        maps.append(block(maps[-1], emb))
    maps.append(trained.encoder.middle(maps[-1], emb))
    assert equal(trained.encoder(xt, emb, e), maps)
    assert e.any() and not torch.equal(maps[0], trained.encoder(xt, emb)[0])


def test_a_palette_has_three_channels(base, inputs):
    """c_condition sets what the condition encoder reads, and nothing else."""
    control = fill_zeros(ControlNet(base, c_condition=3)).double()
    controls = control(*inputs, torch.rand(2, 3, 32, 32, dtype=torch.float64))
    assert len(controls) == 13
    with pytest.raises(Problem, match="of the shape .3, h, w."):
        control(*inputs, torch.rand(2, 1, 32, 32, dtype=torch.float64))


# %% Where a ControlNet lives


def test_a_controlnet_lives_where_its_base_lives(make_base):
    """All its parameters have the base's device and dtype."""
    assert {p.dtype for p in ControlNet(make_base()).parameters()} == {torch.float64}
    elsewhere = ControlNet(make_base().to("meta"))
    assert {p.device.type for p in elsewhere.parameters()} == {"meta"}
