"""Tiny networks with random weights everywhere, so that no test passes because of a zero."""

import importlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: lessons run two at a time

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # plain "pytest" finds the package too
LESSONS = Path(__file__).parents[1] / "lessons"

from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.unet import UNet


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="how many trainings the kill test kills")
    parser.addoption("--experiments", action="store_true", help="run them in quick mode: a minute")


@pytest.fixture(scope="session")
def lesson_run(request, tmp_path_factory):
    """A function from a script in lessons/ to its one run in quick mode, and where it ran.

    Two run side by side: all that the tests of this session ask for, from the first on.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DISPLAY")}
    asked = [item.callspec.params for item in request.session.items
             if hasattr(item, "callspec")]
    runs = {}

    def run(name, folder):
        script = str(LESSONS / f"{name}.py")
        return subprocess.run([sys.executable, script, "--quick"], cwd=folder, text=True,
                              capture_output=True, timeout=240, env=environment,
                              stdin=subprocess.DEVNULL), folder

    with ThreadPoolExecutor(2) as pool:

        def start(name):
            if name not in runs:
                folder = tmp_path_factory.mktemp(name.replace("/", "_"))
                runs[name] = pool.submit(run, name, folder)
            return runs[name]

        for params in asked:
            if "script" in params:
                start(params["script"])
        try:
            yield lambda name: start(name).result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that begins a lesson with some options, and returns what lessons share."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(LESSONS))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def begin(*words):
        monkeypatch.setattr(sys, "argv", ["05_edge_control.py", *words])
        monkeypatch.delitem(sys.modules, "_lesson", raising=False)
        module = importlib.import_module("_lesson")
        module.options("05_edge_control", steps=200, quick_steps=4)
        return module

    yield begin
    for name in list(sys.modules):
        if name.split(".")[0] in ("_lesson", "_figures", "experiments"):
            del sys.modules[name]


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
    """A function that builds a tiny UNet, in float64 unless told otherwise.

    Given pictures of 32x32 its grids are 8, 4, 2 and 1 patches wide.
    """

    def make(widths=(8, 16, 16, 32), dtype=torch.float64, seed=0, **options):
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
    return ControlNet(base).double()


@pytest.fixture
def trained(control):
    """A ControlNet whose zero convs hold random numbers, as after a training."""
    return fill_zeros(control, seed=5)
