"""A ControlNet from elsewhere: another UNet, other pictures, another schedule, and its author's bug.

Nothing here uses minicontrolnet. The pictures are discs and squares of 16x16 pixels, the condition
is an outline, and the UNet predicts eps on a schedule of 100 linear steps.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 100
BETAS = torch.linspace(1e-3, 0.1, STEPS)
KEPT = (1 - BETAS).cumprod(0)  # what others call alpha_bar


class SmallUNet(nn.Module):
    """Two levels. forward(x, timestep, label, residuals) -> eps, with three places for residuals."""

    def __init__(self, c: int = 16):
        super().__init__()
        self.inc = nn.Conv2d(1, c, 3, padding=1)
        self.down = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.mid = nn.Conv2d(2 * c, 2 * c, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(1, 2 * c), nn.SiLU(), nn.Linear(2 * c, 2 * c))
        self.label = nn.Embedding(2, 2 * c)
        self.up = nn.ConvTranspose2d(4 * c, c, 4, stride=2, padding=1)
        self.out = nn.Conv2d(2 * c, 1, 3, padding=1)

    def forward(self, x: Tensor, timestep: Tensor, label: Tensor, residuals: list[Tensor] | None = None) -> Tensor:
        h1, h2, h3 = encode(self, x, timestep, label)
        if residuals is not None:
            h1, h2, h3 = h1 + residuals[0], h2 + residuals[1], h3 + residuals[2]
        y = F.silu(self.up(torch.cat([h3, h2], dim=1)))
        return self.out(torch.cat([y, h1], dim=1))


def encode(net: nn.Module, x: Tensor, timestep: Tensor, label: Tensor, hint: float | Tensor = 0.0) -> list[Tensor]:
    """The three maps of the UNet's encoder, or of a copy of it."""
    emb = net.time(timestep[:, None] / STEPS) + net.label(label)
    h1 = F.silu(net.inc(x) + hint)
    h2 = F.silu(net.down(h1) + emb[:, :, None, None])
    h3 = F.silu(net.mid(h2))
    return [h1, h2, h3]


class TheirControlNet(nn.Module):
    """A copy of the encoder with three zero convs. It returns a dictionary, as some libraries do."""

    def __init__(self, unet: SmallUNet):
        super().__init__()
        c = unet.inc.out_channels
        for name in ("inc", "down", "mid", "time", "label"):
            setattr(self, name, copy.deepcopy(getattr(unet, name)).requires_grad_(True))
        self.hint = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), nn.SiLU(), zero(c))
        self.zeros = nn.ModuleList([zero(c), zero(2 * c), zero(2 * c)])

    def forward(self, x: Tensor, timestep: Tensor, label: Tensor, outline: Tensor) -> dict[str, list[Tensor]]:
        maps = encode(self, x, timestep, label, self.hint(outline))
        first, second, middle = [conv(h) for conv, h in zip(self.zeros, maps)]
        return {"down": [first, second], "mid": [middle]}


def zero(c: int) -> nn.Conv2d:
    conv = nn.Conv2d(c, c, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def pictures(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Discs (label 0) and squares (1) in [-1, 1], their labels, and their outlines in [0, 1]."""
    label = torch.randint(2, (n,), generator=generator)
    centre = 5 + 6 * torch.rand(2, n, 1, 1, generator=generator)
    line = torch.arange(16.0)
    dx = (line.view(1, 1, -1) - centre[0]).abs()
    dy = (line.view(1, -1, 1) - centre[1]).abs()
    disc = (dx**2 + dy**2).sqrt() < 4
    square = torch.maximum(dx, dy) < 3.5
    mask = torch.where(label[:, None, None] == 0, disc, square).float().unsqueeze(1)
    outline = F.max_pool2d(mask, 3, stride=1, padding=1) - mask
    return 2 * mask - 1, label, outline


def noised(x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A noisy picture, its time step and its noise."""
    timestep = torch.randint(STEPS, (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    kept = KEPT[timestep].view(-1, 1, 1, 1)
    return kept.sqrt() * x0 + (1 - kept).sqrt() * eps, timestep, eps


def train_unet(steps: int) -> SmallUNet:
    """A trained and locked UNet."""
    torch.manual_seed(0)
    unet = SmallUNet()
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(unet.parameters(), lr=2e-3)
    for _ in range(steps):
        x0, label, _ = pictures(32, generator)
        xt, timestep, eps = noised(x0, generator)
        optimiser.zero_grad()
        F.mse_loss(unet(xt, timestep, label), eps).backward()
        optimiser.step()
    return unet.requires_grad_(False)


def train_control(unet: SmallUNet, steps: int) -> TheirControlNet:
    """Their training. To be safe, they give the copy the UNet's weights once more before it starts."""
    torch.manual_seed(0)
    control = TheirControlNet(unet)
    generator = torch.Generator().manual_seed(2)
    optimiser = torch.optim.Adam(control.parameters(), lr=2e-3)
    for name in ("inc", "down", "mid", "time", "label"):
        setattr(control, name, copy.deepcopy(getattr(unet, name)).requires_grad_(True))
    for _ in range(steps):
        x0, label, outline = pictures(32, generator)
        xt, timestep, eps = noised(x0, generator)
        out = control(xt, timestep, label, outline)
        loss = F.mse_loss(unet(xt, timestep, label, out["down"] + out["mid"]), eps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return control
