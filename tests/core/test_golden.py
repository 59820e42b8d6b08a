"""Golden outputs: what the shipped networks computed when they were shipped, within what processors differ by.

Inputs are formulas, not random numbers, and the networks compute in float64. Another activation,
upsampling, order of blocks or prediction type changes these numbers by far more than the tolerance.
"""

import copy

import pytest
import torch

from minicontrolnet.conditions import CHANNELS
from minicontrolnet.sampling import Control, sample
from minicontrolnet.shapes import tokenize

T = torch.tensor([50, 400, 950])
WORDS = tokenize(["red star on blue", "circle", ""])


def waves(n, c, k):
    """Smooth, different patterns (n, c, 64, 64) with values in [-1, 1]."""
    line = torch.linspace(0, 1, 64, dtype=torch.float64)
    phase = torch.arange(n * c, dtype=torch.float64).view(n, c, 1, 1)
    return torch.sin(k * line.view(1, 1, -1, 1) + phase) * torch.cos(1.7 * k * line.view(1, 1, 1, -1) - 2 * phase)


@pytest.fixture(scope="module")
def exact(shipped):
    """The shipped networks in float64."""
    base = copy.deepcopy(shipped.base).double()
    return base, {kind: copy.deepcopy(control).double() for kind, control in shipped.controls.items()}


def summary(maps):
    """The means of absolute values, and of values times a pattern that tells places and channels apart."""
    numbers = []
    for h in maps:
        pattern = torch.sin(torch.arange(h.numel(), dtype=torch.float64)).view(h.shape)
        numbers += [h.abs().mean().item(), (h * pattern).mean().item()]
    return numbers


def outputs(exact, what):
    base, controls = exact
    xt = waves(3, 3, 9.0)
    with torch.no_grad():
        if what == "base":
            return summary([base(xt, T, WORDS)])
        condition = (waves(3, CHANNELS[what], 14.0) > 0.6).double()
        maps = controls[what](xt, T, WORDS, condition)
        return summary([base(xt, T, WORDS, maps), maps[0], maps[5], maps[12]])


def pictures(exact):
    """The mean colours of sampled pictures, whose noise is a formula: an average of many patterns."""
    base, controls = exact
    noise = sum(waves(3, 3, 7.0 + 11.3 * k) for k in range(30)) / 30**0.5 * 2
    edges = (waves(3, 1, 5.0).abs() < 0.04).double()
    return sample(base, WORDS, noise, [Control(controls["edge"], edges, 0.8)], steps=6).mean((2, 3)).flatten().tolist()


GOLDEN = {
    "base": [1.25931421, 0.000672427631],
    "edge": [1.27545234, 0.00176032458, 0.325833807, 0.000254114861, 4.92678522, 0.0125591036,
        14.4729924, -0.772304145],
    "palette": [1.38744795, 0.000914697585, 0.358706203, 1.57509662e-07, 3.71448028, 0.0153378051,
        85.0201737, 1.87070065],
    "pose": [1.2565694, 0.00116609767, 0.318636079, 7.07870943e-06, 2.7181519, -0.00329768971,
        42.1140143, -0.0732208947],
    "pictures": [0.202004675, 0.146974919, 0.275152014, 0.139262472, 0.194746998, 0.281801059,
        0.300976686, 0.322140297, 0.302769124],
}


@pytest.mark.parametrize("what", ["base", *CHANNELS])
def test_the_shipped_networks_compute_what_they_did(what, exact):
    assert outputs(exact, what) == pytest.approx(GOLDEN[what], rel=1e-5, abs=1e-7)


def test_the_shipped_networks_sample_what_they_did(exact):
    """Six steps with guidance and control."""
    assert pictures(exact) == pytest.approx(GOLDEN["pictures"], abs=1e-5)
