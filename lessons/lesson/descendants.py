"""A catalogue of ControlNet and its relatives: eight methods on one base, in 15 to 40 lines each.

The core of this repository is the paper. This file holds what others proposed beside it and after it,
each reduced to its idea, so that lesson 12 can compare them on one base.

    1  ControlNet           a trained copy of the encoder, beside the base      controlnet
    2  Control-LoRA         the same copy, trained by low-rank differences      control_lora
    3  T2I-Adapter          a pyramid that reads the outline once per picture   T2IAdapter
    4  ControlNet-XS        a narrow encoder that talks with the base's encoder ControlNetXS
    5  ControlNeXt          four convs, one join, a part of the base trained    ControlNeXt
    6  the base fine-tuned  all of the base trained                             FineTuned
    7  ControlNet++         a ControlNet whose loss looks at its picture        consistency_reward
    8  training-free        nothing trained, a gradient followed in sampling    edge_guided
       a frozen copy        the floor of the comparison, with a bug             frozen_copy

Every entry says which paper it comes from, what is trained and what stays locked, where it joins the
base, what its start is, and where our version departs from the paper. Entries 1 to 6 are modules that
hold what is trained. They are all called in the same way:

    eps = method(base, xt, t, prompt, condition)             # control is on
    eps = method(base, xt, t, prompt)                        # control is off
    eps = method(base, xt, t, prompt, condition, controls)   # plus another ControlNet's 13 controls

Here xt and eps are (b, 3, 64, 64), and the condition is an edge map (b, 1, 64, 64) in [0, 1]. The
base is an argument and no part of the module, so ``method.parameters()`` never contains it. A method
is made on the device of its base. After the catalogue come the tools that the methods share: the
pictures, the loss and the sampler.
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from minicontrolnet import (COLOURS, GUIDANCE, Batch, ControlNet, UNet, cfg, compose, ddim, detect_edges, drop_words,
                            fresh_batch, lock, loss_weight, q_sample, random_scenes, random_times_and_noise, render,
                            roughen, to_eps, to_image, x0_from_eps)
from minicontrolnet.controlnet import ConditionEncoder, Controls
from minicontrolnet.diffusion import TIMESTEPS, Model
from minicontrolnet.shapes import Scenes
from minicontrolnet.training import BATCH_SIZE, Loss, NextBatch
from minicontrolnet.unet import PATCH, Encoder

Layer = Callable[[Tensor, Tensor], Tensor]  # (h, emb) -> h


# %% The two halves of the base, so that a method can act between them


def layers_of(encoder: Encoder) -> list[Layer]:
    """The 13 layers whose outputs are the encoder's 13 maps: first conv, 11 blocks, middle."""

    def first_conv(xt: Tensor, emb: Tensor) -> Tensor:
        return encoder.conv_in(F.pixel_unshuffle(xt, PATCH))  # (b, 32, 16, 16)

    return [first_conv, *encoder.blocks, encoder.middle]


def decode(unet: UNet, maps: list[Tensor], xt: Tensor, t: Tensor, emb: Tensor,
           controls: Controls | None = None) -> Tensor:
    """Add another ControlNet's controls to the 13 maps, decode them, and read the output as eps."""
    if controls is not None:
        maps = [h + control for h, control in zip(maps, controls, strict=True)]
    *skips, middle = maps
    output = unet.decoder(middle, skips, emb)
    return to_eps(output, xt, t, unet.prediction_type)


def device_of(base: UNet) -> torch.device:
    """Where the base is. Methods are made there, and every batch is moved there."""
    return next(base.parameters()).device


# %% 1. ControlNet: a copy beside the base


class Beside(nn.Module):
    """ControlNet itself, in the calling convention of this catalogue.

    Paper: Zhang, Rao and Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models"
        (ICCV 2023, arXiv 2302.05543).
    Trained: a copy of the base's encoder, the condition encoder and 13 zero convs.
    Locked: the whole base. The backward pass goes through its decoder only.
    Joins: 13 controls are added to the encoder's 13 maps, once all of these are computed.
    Start: exactly the base, because the zero convs are 0.
    Departs: see minicontrolnet/controlnet.py.
    """

    def __init__(self, control: ControlNet):
        super().__init__()
        self.control = control

    def forward(self, base: UNet, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor | None = None, controls: Controls | None = None) -> Tensor:
        if condition is None:
            return base(xt, t, prompt, controls)
        own = self.control(xt, t, prompt, condition)
        return base(xt, t, prompt, own if controls is None else compose(own, controls))


def controlnet(base: UNet) -> Beside:
    """The paper's ControlNet. Beside describes it."""
    return Beside(ControlNet(base))


# %% 2. Control-LoRA: the copy is the base plus a low-rank difference


class LowRank(nn.Module):
    """Replace a locked weight W by W + B A, where A has ``rank`` rows and B starts at 0."""

    def __init__(self, weight: Tensor, rank: int):
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.a = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.b @ self.a).view_as(weight)


def control_lora(base: UNet, rank: int = 4) -> Beside:
    """Control-LoRA: a ControlNet whose copy is the base plus a low-rank difference.

    Paper: Stability AI released Control-LoRAs in 2023, without a paper. CtrLoRA (Xu, He, Shan and Chen,
        ICLR 2025, arXiv 2410.09400) trains one ControlNet that several conditions share, together with
        such a low-rank difference for each of them. A new condition then trains a new difference.
    Trained: A and B of every conv and linear layer of the copy, the condition encoder, 13 zero convs.
    Locked: the whole base, and the copy's own weights, which stay the base's.
    Joins: as ControlNet.
    Start: exactly the base, because B and the zero convs are 0.
    Departs: rank 4; Stability AI released ranks 128 and 256, for a far larger base. We copy the locked
        weights as well, so we save no memory.
    """
    control = ControlNet(base)
    for part in (control.embedding, control.encoder):
        lock(part)
        for layer in list(part.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                difference = LowRank(layer.weight, rank).to(layer.weight)
                parametrize.register_parametrization(layer, "weight", difference)
    return Beside(control)


# %% 3. T2I-Adapter: read the outline once


class ResidualConvs(nn.Module):
    """T2I-Adapter's residual block: two convs with a ReLU between them, and a shortcut."""

    def __init__(self, c: int):
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, c, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


class T2IAdapter(nn.Module):
    """T2I-Adapter: a pyramid reads the condition alone, once per picture.

    Paper: Mou et al., "T2I-Adapter: Learning Adapters to Dig out More Controllable Ability for
        Text-to-Image Diffusion Models" (AAAI 2024, arXiv 2302.08453).
    Trained: the pyramid. It sees neither xt nor t nor the prompt. Its training prefers early, noisy
        times, see cubic_times.
    Locked: the whole base. The backward pass goes through nearly all of it.
    Joins: inside the base's encoder. One map is added after the last block of each of its four levels.
    Start: near the base but not exactly the base, because the pyramid's weights start random.
    Departs: widths and depths are those of our base; a patch has 4 pixels, where theirs has 8.
    """

    JOINS = (2, 5, 8, 11)  # the last map of each level

    def __init__(self, base: UNet):
        super().__init__()
        self.levels = nn.ModuleList()
        c_in = PATCH**2
        for join in self.JOINS:
            c = base.encoder.channels[join]
            shrink = nn.Identity() if join == self.JOINS[0] else nn.AvgPool2d(2)
            self.levels.append(nn.Sequential(shrink, nn.Conv2d(c_in, c, 3, padding=1),
                                             ResidualConvs(c), ResidualConvs(c)))
            c_in = c
        self.to(device_of(base), memory_format=torch.channels_last)

    def features(self, condition: Tensor) -> list[Tensor]:
        """One map per level; they hold for all steps of sampling, so they are computed once."""
        h = F.pixel_unshuffle(condition, PATCH)  # (b, 16, 16, 16)
        maps = []
        for level in self.levels:
            h = level(h)
            maps.append(h)
        return maps

    def forward(self, base: UNet, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor | None = None, controls: Controls | None = None) -> Tensor:
        if condition is None:
            return base(xt, t, prompt, controls)
        emb = base.embedding(t, prompt)
        features = dict(zip(self.JOINS, self.features(condition)))
        h = xt
        maps = []
        for i, layer in enumerate(layers_of(base.encoder)):
            h = layer(h, emb)
            if i in features:
                h = h + features[i]
            maps.append(h)
        return decode(base, maps, xt, t, emb, controls)


def cubic_times(t: Tensor) -> Tensor:
    """T2I-Adapter's times: from t uniform in [0, T) to (1 - (t / T)^3) T, mostly early, noisy ones."""
    share = (t + 0.5) / TIMESTEPS
    return ((1 - share**3) * TIMESTEPS).long().clamp(0, TIMESTEPS - 1)


# %% 4. ControlNet-XS: talk at every layer


class ControlNetXS(nn.Module):
    """ControlNet-XS: a narrow encoder that talks with the base's encoder at every layer.

    Paper: Zavadski, Feiden and Rother, "ControlNet-XS: Rethinking the Control of Text-to-Image Diffusion
        Models as Feedback-Control Systems" (ECCV 2024, arXiv 2312.06573).
    Trained: the narrow encoder, the condition encoder, 12 convs from the base and 13 zero convs to it.
    Locked: the whole base. The backward pass goes through all of it.
    Joins: inside the base's encoder, after each of its 13 layers. So the controller sees at once what
        its last correction did, where ControlNet waits for the next step of sampling.
    Start: exactly the base, because the zero convs are 0.
    Departs: the base's maps are added to the narrow ones by a 1x1 conv, where the paper concatenates
        them; our controller does not join the decoder.
    """

    WIDTHS = (8, 16, 24, 32)  # a quarter of the base's, except that attention needs 32

    def __init__(self, base: UNet):
        super().__init__()
        self.encoder = Encoder(self.WIDTHS, 3, base.embedding.size)
        self.condition_encoder = ConditionEncoder(1, self.WIDTHS[0])
        pairs = list(zip(base.encoder.channels, self.encoder.channels, strict=True))
        self.from_base = nn.ModuleList(nn.Conv2d(c, own, 1) for c, own in pairs[:-1])
        self.to_base = nn.ModuleList(nn.Conv2d(own, c, 1) for c, own in pairs)
        for conv in self.to_base:
            nn.init.zeros_(conv.weight)  # zero convs, from narrow to wide
            nn.init.zeros_(conv.bias)
        self.to(device_of(base), memory_format=torch.channels_last)

    def forward(self, base: UNet, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor | None = None, controls: Controls | None = None) -> Tensor:
        if condition is None:
            return base(xt, t, prompt, controls)
        emb = base.embedding(t, prompt)
        wide = xt
        narrow = xt
        maps = []
        both = zip(layers_of(base.encoder), layers_of(self.encoder), strict=True)
        for i, (wide_layer, narrow_layer) in enumerate(both):
            if i > 0:
                narrow = narrow + self.from_base[i - 1](wide)
            wide = wide_layer(wide, emb)
            narrow = narrow_layer(narrow, emb)
            if i == 0:
                narrow = narrow + self.condition_encoder(condition)
            wide = wide + self.to_base[i](narrow)
            maps.append(wide)
        return decode(base, maps, xt, t, emb, controls)


# %% 5. ControlNeXt: one join


def cross_normalise(control: Tensor, main: Tensor) -> Tensor:
    """Give each picture's control maps the mean and standard deviation of the main branch's maps."""
    dims = (1, 2, 3)
    standard = (control - control.mean(dims, keepdim=True)) / (control.std(dims, keepdim=True) + 1e-6)
    return standard * main.std(dims, keepdim=True) + main.mean(dims, keepdim=True)


class ControlNeXt(nn.Module):
    """ControlNeXt: a few convs, one join with cross normalisation, and a small part of the base trained.

    Paper: Peng, Wang, Zhang, Li, Yang and Jia, "ControlNeXt: Powerful and Efficient Control for Image
        and Video Generation" (2024, arXiv 2408.06070). The join follows the authors' code.
    Trained: four convs that read the condition, and a copy of two of the base's blocks.
    Locked: the other blocks. The backward pass goes through everything behind the join.
    Joins: once, after the first level of the encoder. There is no zero conv. Cross normalisation makes
        the control as large as the maps that it is added to, from the first step on.
    Start: not the base.
    Departs: the convs do not see t. The trained part is the two blocks behind the join; the paper trains
        other selected weights of its larger base. The arguments are for ablations: which layers are
        trained, a zero conv in place of the normalisation, and another join.
    """

    JOIN = 3  # the first map on the grid of 8x8; 0 is the first one on the grid of 16x16

    def __init__(self, base: UNet, trained: Sequence[int] = (4, 5), normalise: bool = True, join: int = JOIN):
        super().__init__()
        self.join = join
        c = base.encoder.channels[join]
        stride = 2 if join == self.JOIN else 1
        self.normalise = normalise
        self.reader = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(),   # (b, 16, 32, 32)
            nn.Conv2d(16, 32, 4, stride=2, padding=1), nn.ReLU(),  # (b, 32, 16, 16)
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),            # (b, 64, 16, 16)
            nn.Conv2d(64, c, 2 + stride, stride, padding=1),       # (b, c, 8, 8)
        )
        if not normalise:  # an ablation: start as ControlNet does
            nn.init.zeros_(self.reader[-1].weight)
            nn.init.zeros_(self.reader[-1].bias)
        layers = layers_of(base.encoder)
        self.blocks = nn.ModuleDict({str(i): copy.deepcopy(layers[i]) for i in trained})
        self.requires_grad_(True)
        self.to(device_of(base), memory_format=torch.channels_last)

    def forward(self, base: UNet, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor | None = None, controls: Controls | None = None) -> Tensor:
        emb = base.embedding(t, prompt)
        h = xt
        maps = []
        for i, layer in enumerate(layers_of(base.encoder)):
            if str(i) in self.blocks:
                layer = self.blocks[str(i)]
            h = layer(h, emb)
            maps.append(h)
            if i == self.join and condition is not None:
                control = self.reader(condition)
                h = h + (cross_normalise(control, h) if self.normalise else control)
        return decode(base, maps, xt, t, emb, controls)


# %% 6. The base itself, fine-tuned


class FineTuned(nn.Module):
    """The base itself, trained further with the condition as a second input.

    Paper: none. People did this before ControlNet, for example for the depth model of Stable Diffusion 2.
    Trained: all weights of the base, and a condition encoder.
    Locked: nothing.
    Joins: after the first conv. Adding there does what concatenating the condition to the input does.
    Start: exactly the base, because the condition encoder ends in a zero conv.
    Departs: nothing to depart from.
    """

    def __init__(self, base: UNet):
        super().__init__()
        self.unet = copy.deepcopy(base).requires_grad_(True)
        self.condition_encoder = ConditionEncoder(1, base.encoder.channels[0])
        self.to(device_of(base), memory_format=torch.channels_last)

    def forward(self, base: UNet, xt: Tensor, t: Tensor, prompt: Tensor,
                condition: Tensor | None = None, controls: Controls | None = None) -> Tensor:
        emb = self.unet.embedding(t, prompt)
        features = None if condition is None else self.condition_encoder(condition)
        maps = self.unet.encoder(xt, emb, features)
        return decode(self.unet, maps, xt, t, emb, controls)


# %% 7. ControlNet++: a reward


def consistency_reward(eps: Tensor, xt: Tensor, t: Tensor, edges: Tensor) -> Tensor:
    """ControlNet++: compare the edges of the picture that one step predicts with the outline.

    Paper: Li et al., "ControlNet++: Improving Conditional Controls with Efficient Consistency Feedback"
        (ECCV 2024, arXiv 2404.07987).
    Trained: as in ControlNet. The reward is one more term of its loss.
    Locked: the base, and the extractor of the edges.
    Joins: as ControlNet.
    Start: exactly the base, as ControlNet.
    Departs: the paper rewards a ControlNet that is trained already, and has another differentiable extractor
        for each condition. Here the reward is there from the first step, and soft_edges extracts the edges.
        It counts for the cleaner half of the times, where one step predicts the picture well; in the paper
        for the cleanest fifth.
    """
    clean = (t < TIMESTEPS // 2).float()
    x0 = x0_from_eps(eps, xt, t)
    return (clean * edge_loss(x0, edges)).mean()


REWARD = 1.0  # its weight; then the reward is about a seventh of the loss


# %% 8. Control without training


def edge_guided(base: UNet, prompt: Tensor, edges: Tensor, strength: float = 0.3) -> Model:
    """Training-free guidance: follow the gradient of an edge loss on the predicted picture.

    Paper: Bansal et al., "Universal Guidance for Diffusion Models" (CVPR Workshops 2023, arXiv 2302.07121),
        and Yu et al., "FreeDoM: Training-Free Energy-Guided Conditional Diffusion Model" (ICCV 2023,
        arXiv 2303.09833), with other losses.
    Trained: nothing.
    Locked: everything. A step costs a forward and a backward pass of the base.
    Joins: at eps, from outside.
    Start: there is no training.
    Departs: no repeated steps back in time. For each picture we scale the gradient to 0.3 of the length of
        eps. We chose this share, and the blur of the edges, on 16 pictures that served for nothing else.
    """

    def model(xt: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            xt = xt.detach().requires_grad_(True)
            eps = base(xt, t, prompt)
            loss = edge_loss(x0_from_eps(eps, xt, t), edges).sum()
            (gradient,) = torch.autograd.grad(loss, xt)
        size = gradient.flatten(1).norm(dim=1).clamp(min=1e-12) / eps.flatten(1).norm(dim=1)
        return eps.detach() + strength * gradient / size.view(-1, 1, 1, 1)

    return model


# %% The floor: a frozen copy


def frozen_copy(base: UNet) -> Beside:
    """The floor: a ControlNet whose copy is locked, so that its zero convs alone learn.

    Paper: none. Real projects had this bug for weeks without noticing it.
    Trained: 13 zero convs, and the last conv of the condition encoder, which is a zero conv, too.
    Locked: the base, the copy, and the random convs of the condition encoder.
    Joins: as ControlNet.
    Start: exactly the base, because the zero convs are 0.
    Departs: nothing to depart from.
    """
    control = ControlNet(base)
    control.requires_grad_(False)
    control.zero_convs.requires_grad_(True)
    control.condition_encoder.layers[-1].requires_grad_(True)
    return Beside(control)


# %% The edge loss: what ControlNet++ and training-free guidance look at


def soft_edges(images: Tensor) -> Tensor:
    """Where colours change, (n, 3, h, w) -> (n, 1, h, w): like an edge map, but with a gradient."""
    across = images[..., 1:-1, 2:] - images[..., 1:-1, :-2]
    down = images[..., 2:, 1:-1] - images[..., :-2, 1:-1]
    strength = (across**2 + down**2 + 1e-6).sqrt().amax(1, keepdim=True)
    return F.pad(strength, (1, 1, 1, 1))


def blurred(edges: Tensor) -> Tensor:
    """Blur edge maps by about 4 pixels, so that near misses have a slope, and scale each to 1."""
    for _ in range(2):
        edges = F.avg_pool2d(edges, 9, stride=1, padding=4)
    return edges / edges.amax((2, 3), keepdim=True).clamp(min=1e-3)


def edge_loss(x0: Tensor, edges: Tensor) -> Tensor:
    """How far the edges of pictures x0 in [-1, 1] are from edge maps: one number per picture."""
    found = blurred(soft_edges((x0 + 1) / 2))
    return (found - blurred(edges)).square().mean((1, 2, 3))


# %% The data: pictures in four of the eight colours

SEEN = ("white", "orange", "green", "blue")
NEW = ("cyan", "yellow", "red", "purple")


def part_of_world(n: int, generator: torch.Generator, colours: Sequence[str]) -> Batch:
    """n pictures whose two colours are both among these: the first that fit of many."""
    scenes = random_scenes(16 * n, generator)
    index = torch.tensor([list(COLOURS).index(name) for name in colours])
    fits = torch.isin(scenes.colour, index) & torch.isin(scenes.background, index)
    scenes = Scenes(*(field[fits][:n] for field in scenes))
    image, mask = render(scenes)
    return Batch(image, image * 2 - 1, mask, scenes.prompt, scenes)


def seen_batch(generator: torch.Generator) -> Batch:
    """A training batch in which four of the eight colours never occur."""
    return part_of_world(BATCH_SIZE, generator, SEEN)


# %% The loss of every method


def following_loss(base: UNet, next_batch: NextBatch = fresh_batch, cubic: bool = False,
                   reward: float = 0.0) -> Loss:
    """The loss of every method is Eq. 5. Equal seeds give equal pictures, prompts, times and noise,
    on every device: a batch is made on the CPU, and moved to the base.

    cubic: T2I-Adapter's choice of times.
    reward: the weight of ControlNet++'s consistency reward.
    """

    def loss(method: nn.Module, generator: torch.Generator) -> Tensor:
        batch = next_batch(generator)
        outlines = roughen(detect_edges(batch.image), generator)
        words = drop_words(batch.prompt, generator, whole=0.5, each=0.0)
        times, noise = random_times_and_noise(batch.x0, generator)
        if cubic:
            times = cubic_times(times)
        device = device_of(base)
        x0, t, eps, prompt, edges = (tensor.to(device) for tensor in (batch.x0, times, noise, words, outlines))
        xt = q_sample(x0, t, eps)
        predicted = method(base, xt, t, prompt, edges)
        weight = loss_weight(t, xt, base.prediction_type)
        value = (weight * (eps - predicted) ** 2).mean()
        if reward:
            value = value + reward * consistency_reward(predicted, xt, t, edges)
        return value

    return loss


# %% Sampling


def guided_by(base: UNet, method: nn.Module, prompt: Tensor, condition: Tensor,
              guidance_scale: float = GUIDANCE, others=()) -> Model:
    """A model(xt, t) -> eps with control in the conditional branch of guidance alone.

    others: pairs of a ControlNet and its condition, whose controls are added.
    """

    def conditional(xt: Tensor, t: Tensor) -> Tensor:
        controls = [net(xt, t, prompt, own) for net, own in others]
        return method(base, xt, t, prompt, condition, compose(*controls) if controls else None)

    def unconditional(xt: Tensor, t: Tensor) -> Tensor:
        return method(base, xt, t, torch.zeros_like(prompt))

    return cfg(unconditional, conditional, guidance_scale)


def control_off(base: UNet, method: nn.Module, prompt: Tensor, guidance_scale: float = GUIDANCE) -> Model:
    """The same without control: what a method has left of the base."""

    def conditional(xt: Tensor, t: Tensor) -> Tensor:
        return method(base, xt, t, prompt)

    def unconditional(xt: Tensor, t: Tensor) -> Tensor:
        return method(base, xt, t, torch.zeros_like(prompt))

    return cfg(unconditional, conditional, guidance_scale)


def generate(model: Model, noise: Tensor, steps: int = 12) -> Tensor:
    """Pictures (n, 3, 64, 64) in [0, 1] from noise, by DDIM."""
    return to_image(ddim(model, noise, steps))
