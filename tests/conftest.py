"""What the tests share: tiny networks with random weights everywhere, the shipped ones, and the slow tests' option."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job: its children could not get Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the networks are too small for more

import pytest
import torch

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "lessons"
sys.path.insert(0, str(ROOT))  # plain "pytest" finds the package too

from minicontrolnet.conditions import CHANNELS
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.run.weights import load_base, load_classifier, load_control
from minicontrolnet.training import seeded
from minicontrolnet.unet import UNet


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests, too")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long; runs with --slow, or with -m slow alone")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow") or "slow" in config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: give --slow to run it"))


@pytest.fixture(autouse=True)
def same_start():
    """torch's global generator starts anew in each test, so that no test depends on those before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shipped():
    """The networks that ship, loaded once: ``base``, ``controls`` by name, ``classifier``. All are locked."""
    base = load_base()
    controls = {kind: load_control(kind, base) for kind in CHANNELS}
    return SimpleNamespace(base=base, controls=controls, classifier=load_classifier())


def fill_zeros(module, seed=0):
    """Fill every parameter that starts as 0 with noise, so that no test passes because of a zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def make_base():
    """A function that builds a tiny UNet, in float64 unless told otherwise.

    Given pictures of 32x32 its grids are 8, 4, 2 and 1 patches wide.
    """

    def make(widths=(8, 16, 16, 32), dtype=torch.float64, seed=0, **options):
        return fill_zeros(seeded(seed, UNet, widths, c_emb=16, **options), seed).to(dtype)

    return make


@pytest.fixture
def base(make_base):
    """A tiny locked base in float64."""
    return lock(make_base())


@pytest.fixture
def inputs():
    """Noisy pictures xt, times t and prompts for the tiny base: (2, 3, 32, 32), (2,), (2, 3)."""
    generator = torch.Generator().manual_seed(1)
    xt = torch.randn(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    return xt, torch.tensor([300, 700]), torch.tensor([[1, 2, 3], [8, 4, 0]])


@pytest.fixture
def condition():
    """A condition for the inputs, as large as they are and not empty: (2, 1, 32, 32)."""
    generator = torch.Generator().manual_seed(2)
    return torch.rand(2, 1, 32, 32, generator=generator, dtype=torch.float64)


@pytest.fixture
def control(base):
    """An untrained ControlNet: its copy is full of random numbers, its zero convs are 0."""
    return seeded(3, ControlNet, base).double()


@pytest.fixture
def trained(control):
    """A ControlNet whose zero convs hold random numbers, as after a training."""
    return fill_zeros(control, seed=5)
