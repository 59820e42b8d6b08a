"""Tiny networks with random weights everywhere, so that no test passes because of a zero."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # plain "pytest" finds the package too

from minicontrolnet.controlnet import lock
from minicontrolnet.unet import UNet


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="how many trainings the kill test kills")


@pytest.fixture(scope="session")
def lesson_run(tmp_path_factory):
    """A function from a lesson's name to its one run in quick mode, and the folder it ran in."""
    runs = {}
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DISPLAY")}

    def run(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            script = Path(__file__).parents[1] / "lessons" / f"{name}.py"
            runs[name] = subprocess.run([sys.executable, str(script), "--quick"], cwd=folder, text=True,
                                        capture_output=True, timeout=240, env=environment), folder
        return runs[name]

    return run


def fill_zeros(module, seed=0):
    """Fill every parameter that starts as 0 with noise; returns the module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def make_base():
    """A function that builds a tiny UNet, in float64 unless told otherwise."""

    def make(widths=(8, 16, 16, 16), dtype=torch.float64, seed=0, **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return fill_zeros(UNet(widths, c_emb=16, **options), seed).to(dtype)

    return make


@pytest.fixture
def base(make_base):
    """A tiny locked base in float64."""
    return lock(make_base())


@pytest.fixture
def inputs():
    """Noisy pictures xt, times t and prompts for the tiny base: (2, 3, 16, 16), (2,), (2, 3)."""
    generator = torch.Generator().manual_seed(1)
    xt = torch.randn(2, 3, 16, 16, generator=generator, dtype=torch.float64)
    return xt, torch.tensor([300, 700]), torch.tensor([[1, 2, 3], [8, 4, 0]])


@pytest.fixture
def condition():
    """A condition for the inputs, not empty: (2, 1, 32, 32)."""
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 1, 32, 32, generator=generator, dtype=torch.float64)
