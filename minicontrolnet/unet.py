"""The base model: a small DDPM UNet, divided where ControlNet divides it (Fig. 3).

UNet = Embedding + Encoder (with the middle block) + Decoder. The encoder returns 12 skips and
the output of the middle block. At these 13 places a ControlNet adds its controls later; nothing
in this file depends on where they come from. Shapes: b pictures, c channels, a grid of h x w.

The network works on a grid of 16x16 patches. A patch is 4x4 pixels of three colours, 48 numbers.
Stable Diffusion uses a trained autoencoder for this step; patches need no training and lose nothing.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .diffusion import check_prediction_type, check_times, to_eps
from .errors import Problem, check_count, check_input, check_same_type
from .shapes import VOCABULARY_SIZES, check_tokens

PATCH = 4  # pixels


class Embedding(nn.Module):
    """Turn time and prompt into one vector: t (b,), prompt (b, 3) -> (b, size).

    Stable Diffusion reads its prompt by cross-attention. For three words a sum is enough.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.words = nn.ModuleList(nn.Embedding(count, size) for count in VOCABULARY_SIZES)
        self.time = nn.Sequential(nn.Linear(size, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, t: Tensor, prompt: Tensor) -> Tensor:
        _check_times_and_prompts(t, prompt)
        log_frequency = torch.arange(self.size // 2, device=t.device) * (-math.log(1e4) * 2 / self.size)
        angle = t[:, None] * log_frequency.exp()                 # (b, size / 2)
        waves = torch.cat([angle.sin(), angle.cos()], dim=1)     # (b, size)
        time = self.time(waves.to(self.time[0].weight.dtype))    # (b, size)
        words = sum(table(word) for table, word in zip(self.words, prompt.T))  # (b, size)
        return F.silu(time + words)


def _check_times_and_prompts(t: Tensor, prompt: Tensor) -> None:
    """Raise Problem unless t and prompt have one row for each picture. Each of them may have a single row for all."""
    if not (isinstance(t, Tensor) and isinstance(prompt, Tensor)):
        raise Problem(f"the times are a {type(t).__name__} and the prompts a {type(prompt).__name__}; give two tensors,"
                      " the prompts as tokenize makes them")
    fits = t.dim() == 1 and prompt.dim() == 2 and prompt.shape[1] == 3
    if not fits or (len(t) != len(prompt) and 1 not in {len(t), len(prompt)}):
        raise Problem(f"the times have the shape {tuple(t.shape)} and the prompts {tuple(prompt.shape)}; give (b,) and"
                      " (b, 3) for b pictures")
    check_times(t)
    if prompt.device.type == "cpu" and not torch.compiler.is_compiling():  # a GPU would first finish all earlier work
        check_tokens(prompt)


def group_norm(c: int, affine: bool = True) -> nn.GroupNorm:
    """GroupNorm with 8 channels in each group."""
    return nn.GroupNorm(c // 8, c, affine=affine)


class ResBlock(nn.Module):
    """Two convolutions with a shortcut. Between them the embedding scales and shifts each channel."""

    def __init__(self, c_in: int, c_out: int, c_emb: int):
        super().__init__()
        self.norm1 = group_norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2 = group_norm(c_out, affine=False)
        self.emb = nn.Linear(c_emb, 2 * c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # so each block starts as its shortcut, as in DDPM
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))  # (b, c_out, h, w)
        scale, shift = self.emb(emb)[:, :, None, None].chunk(2, dim=1)  # (b, c_out, 1, 1) each
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)  # shift + norm2(h) * (1 + scale)
        h = self.conv2(F.silu(h))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Self-attention over the h w places of the grid, with a shortcut. Each head has 32 channels."""

    def __init__(self, c: int):
        super().__init__()
        self.norm = group_norm(c)
        self.qkv = nn.Conv2d(c, 3 * c, 1)
        self.out = nn.Conv2d(c, c, 1)
        nn.init.zeros_(self.out.weight)  # so the block starts as its shortcut
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        qkv = self.qkv(self.norm(x))  # (b, 3 c, h, w)
        q, k, v = rearrange(qkv, "b (three head c) h w -> three b head (h w) c", three=3, c=32)
        y = F.scaled_dot_product_attention(q, k, v)  # (b, head, h w, 32)
        return x + self.out(rearrange(y, "b head (h w) c -> b (head c) h w", h=h, w=w))


class Downsample(nn.Conv2d):
    """Halve the grid by a convolution of stride 2."""

    def __init__(self, c: int):
        super().__init__(c, c, 3, stride=2, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return super().forward(x)  # (b, c, h / 2, w / 2); emb is here because the encoder calls all blocks alike


class Upsample(nn.Conv2d):
    """Double the grid: convolve, and then repeat every place 2x2. In this order the convolution costs a quarter."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(super().forward(x), scale_factor=2.0)  # (b, c, 2 h, 2 w)


class Middle(nn.Module):
    """The middle block of Fig. 3, on the smallest grid. It is the only block with attention."""

    def __init__(self, c: int, c_emb: int):
        super().__init__()
        self.block1 = ResBlock(c, c, c_emb)
        self.attention = Attention(c)
        self.block2 = ResBlock(c, c, c_emb)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        return self.block2(self.attention(self.block1(x, emb)), emb)


class Encoder(nn.Module):
    """Fig. 3's encoder blocks A to D and its middle block: the part that ControlNet copies.

    Returns 13 maps: 12 skips, from shallow to deep, and the output of the middle block last. Each
    level contributes three: the first convolution or a downsampling, then two residual blocks.
    """

    def __init__(self, widths: tuple[int, ...], c_in: int, c_emb: int):
        super().__init__()
        _check_widths(widths)
        c = widths[0]
        self.c_in = c_in
        self.conv_in = nn.Conv2d(c_in * PATCH**2, c, 3, padding=1)
        self.channels = [c]  # of each of the 13 maps
        self.blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            if level > 0:
                self.blocks.append(Downsample(c))
                self.channels.append(c)
            self.blocks.append(ResBlock(c, width, c_emb))
            self.blocks.append(ResBlock(width, width, c_emb))
            self.channels += [width, width]
            c = width
        self.middle = Middle(c, c_emb)
        self.channels.append(c)

    def forward(self, xt: Tensor, emb: Tensor, features: Tensor | None = None) -> list[Tensor]:
        """``features`` (b, widths[0], 16, 16) is a ControlNet's condition after its condition encoder."""
        check_input("the pictures", xt, self, self.c_in, multiple=8 * PATCH)  # the deepest grid then has one place
        h = self.conv_in(F.pixel_unshuffle(xt, PATCH))  # (b, widths[0], 16, 16)
        _check_batch("times and prompts", emb, h)
        if features is not None:
            _check_batch("conditions", features, h)
            h = h + features  # the condition enters here and nowhere else
        maps = [h]
        for block in self.blocks:
            h = block(h, emb)
            maps.append(h)
        maps.append(self.middle(h, emb))
        return maps


def _check_widths(widths: Sequence[int]) -> None:
    """Raise Problem unless groups of 8 channels and attention heads of 32 can be made of the widths."""
    if not isinstance(widths, Sequence):
        raise Problem(f"the widths are a {type(widths).__name__}; give 4 of them, one for each level of Fig. 3")
    if len(widths) != 4:
        raise Problem(f"there are {len(widths)} widths; give 4, one for each level of Fig. 3")
    for width in widths:
        check_count("a width", width, low=8)
    if any(width % 8 for width in widths) or widths[-1] % 32:
        raise Problem(f"the widths are {tuple(widths)}; give multiples of 8, since a group of GroupNorm has 8 channels,"
                      " and as the last one a multiple of 32, since a head of the attention has 32")


def _check_batch(name: str, given: Tensor, h: Tensor) -> None:
    """Raise Problem unless there is one of these for each picture, or one for all.

    Without this check, torch would silently repeat a single picture for several conditions.
    """
    if len(given) not in {1, len(h)} or given.dim() == 4 and given.shape[1:] != h.shape[1:]:
        raise Problem(f"{name} of the shape {tuple(given.shape)} do not fit pictures of the shape {tuple(h.shape)} on"
                      " the UNet's grid; give one for each picture, of the same size")


class Decoder(nn.Module):
    """Fig. 3's decoder blocks D to A. Before each residual block it concatenates one skip."""

    def __init__(self, widths: tuple[int, ...], skip_channels: list[int], c_out: int, c_emb: int):
        super().__init__()
        self.skip_channels = list(skip_channels)
        deep_to_shallow = reversed(skip_channels)
        c = widths[-1]
        self.levels = nn.ModuleList()
        self.upsamples = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            blocks = nn.ModuleList()
            for _ in range(3):
                blocks.append(ResBlock(c + next(deep_to_shallow), width, c_emb))
                c = width
            self.levels.append(blocks)
            if level:
                self.upsamples.append(Upsample(c, widths[level - 1]))
                c = widths[level - 1]
        self.upsamples.append(nn.Identity())
        self.norm = group_norm(c)
        self.conv_out = nn.Conv2d(c, c_out * PATCH**2, 3, padding=1)

    def forward(self, middle: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        skips = list(skips)
        channels = [skip.shape[1] for skip in skips]
        if channels != self.skip_channels:
            raise Problem(f"the skips have {channels} channels; give {self.skip_channels}, from shallow to deep, as the"
                          " encoder returns them")
        h = middle
        deep_to_shallow = reversed(skips)
        for blocks, upsample in zip(self.levels, self.upsamples):
            for block in blocks:
                h = block(torch.cat([h, next(deep_to_shallow)], dim=1), emb)
            h = upsample(h)
        patches = self.conv_out(F.silu(self.norm(h)))  # (b, 48, 16, 16)
        return F.pixel_shuffle(patches, PATCH)  # (b, 3, 64, 64)


def fitting(controls: Iterable[Tensor], maps: list[Tensor]) -> list[Tensor]:
    """A list of the controls. Raises Problem unless each map has one of its own shape, for each picture or for all."""
    if not isinstance(controls, Iterable):
        raise Problem(f"the controls are a {type(controls).__name__}; give a list or a tuple of {len(maps)} tensors, as"
                      " a ControlNet returns them")
    controls = list(controls)
    if len(controls) != len(maps):
        raise Problem(f"there are {len(controls)} controls for {len(maps)} maps; give all {len(maps)}, as a ControlNet"
                      " returns them")
    for i, (control, h) in enumerate(zip(controls, maps), 1):
        shape = control.shape if isinstance(control, Tensor) else None
        if shape is None or shape[1:] != h.shape[1:] or shape[0] not in {1, len(h)}:
            found = type(control).__name__ if shape is None else f"of the shape {tuple(shape)}"
            raise Problem(f"control {i} is {found}, but its map has the shape {tuple(h.shape)}; give the controls from"
                          " shallow to deep, of a ControlNet for this base and these pictures")
        check_same_type(f"control {i}", control, "its map", h)
    return controls


class UNet(nn.Module):
    """The base: forward(xt, t, prompt, controls) -> eps, where xt and eps are (b, 3, 64, 64).

    ``widths``: the channels of the four levels, whose grids are 16, 8, 4 and 2 places wide.
    ``prediction_type``: what the layers output: "x0", "v" or "eps". forward turns it into eps.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 96), c: int = 3, c_emb: int = 128,
                 prediction_type: str = "x0"):
        super().__init__()
        check_count("c", c)
        check_count("c_emb", c_emb, low=2)
        if c_emb % 2:
            raise Problem(f"c_emb is {c_emb}; give an even number, half of it for sines and half for cosines")
        check_prediction_type(prediction_type)
        self.prediction_type = prediction_type
        self.embedding = Embedding(c_emb)
        self.encoder = Encoder(widths, c, c_emb)
        self.decoder = Decoder(widths, self.encoder.channels[:-1], c, c_emb)
        self.to(memory_format=torch.channels_last)  # on some CPUs convolutions are faster in this layout

    def forward(self, xt: Tensor, t: Tensor, prompt: Tensor,
                controls: Sequence[Tensor] | None = None) -> Tensor:
        """Encode, add the 13 controls to the 12 skips and the middle, decode, and return eps."""
        emb = self.embedding(t, prompt)            # (b, 128)
        maps = self.encoder(xt, emb)               # 12 skips and the middle
        if controls is not None:
            controls = fitting(controls, maps)
            maps = [h + control for h, control in zip(maps, controls, strict=True)]
        *skips, middle = maps
        output = self.decoder(middle, skips, emb)  # (b, 3, 64, 64)
        return to_eps(output, xt, t, self.prediction_type)
