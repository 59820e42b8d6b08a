"""What a step costs: arithmetic and memory by hand, and a clock that waits for the GPU."""

import time

import pytest
import torch
from torch import nn

from conftest import ROOT
from minicontrolnet import base_loss, fingerprint, seeded, training
from minicontrolnet.controlnet import ControlNet, lock
from minicontrolnet.errors import Problem
from minicontrolnet.measure import cost
from minicontrolnet.sampling import sample
from minicontrolnet.training import control_loss
from minicontrolnet.unet import UNet


def product(network, generator):
    """A loss of one matrix product of 5 rows."""
    return network(torch.ones(5, 3)).sum()


def test_a_clock_measures_seconds():
    """The first three rounds are dropped; what sleeps for longer takes longer."""
    calls = []
    short, long = cost.seconds(lambda: calls.append("short"), lambda: time.sleep(0.02), rounds=4)
    assert len(short) == len(long) == 4 and calls == ["short"] * 7
    assert min(long) >= 0.02 and min(short) >= 0


def test_a_clock_waits_for_the_gpu(monkeypatch):
    """Before it starts and before it stops: CUDA's functions return before their work is done."""
    events = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: events.append("wait"))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: events.append("clock") or float(len(events)))
    cost.seconds(lambda: events.append("work"), rounds=1)
    assert events == ["wait", "clock", "work", "wait", "clock"] * 4


def test_arithmetic_of_a_matrix_product():
    """Forward 2 * 5 * 3 * 7; backward as much for the weight, and nothing for an input without a gradient."""
    assert cost.flops(nn.Linear(3, 7, bias=False), product) == 2 * 2 * 5 * 3 * 7


def test_memory_of_a_matrix_product():
    """A weight, its gradient and two moments; autograd keeps the input for the backward pass."""
    assert cost.memory(nn.Linear(3, 7, bias=False), product) == 4 * 4 * 21 + 4 * 15
    locked = lock(nn.Linear(10, 10))
    assert cost.memory(nn.Linear(3, 7, bias=False), product, locked) == 4 * 4 * 21 + 4 * 15 + 4 * 110


def test_costs_are_relative_to_the_first_arm():
    """Twice the columns have twice the arithmetic."""
    arms = {"one": (nn.Linear(3, 7, bias=False), product), "two": (nn.Linear(3, 14, bias=False), product)}
    costs = cost.relative_costs(arms, rounds=1)
    assert costs["one"] == [1, 1, 1] and costs["two"][0] == 2 and costs["two"][2] > 1.5


def test_a_step_trains(make_base):
    base = lock(make_base((8, 8, 8, 32), torch.float32))
    control = ControlNet(base)
    cost.one_step(control, control_loss(base, "edge"))()
    assert all(conv.weight.any() for conv in control.zero_convs)


@pytest.mark.slow
def test_the_table_has_every_row_with_finite_numbers(monkeypatch, capsys):
    """Tiny networks, small batches, few rounds."""
    seconds, share = cost.seconds, cost.share_in_kernels
    monkeypatch.setattr(cost, "UNet", lambda: UNet((8, 8, 8, 32), c_emb=16))
    monkeypatch.setattr(cost, "seconds", lambda *functions, rounds=0: seconds(*functions, rounds=2))
    monkeypatch.setattr(cost, "share_in_kernels", lambda step: share(step, rounds=1))
    monkeypatch.setattr(cost, "import_seconds", lambda: 0.5)
    monkeypatch.setattr(training, "BATCH_SIZE", 2)
    monkeypatch.setattr(cost, "sample", lambda *given: sample(*given, steps=2))
    cost.show_speed()
    table = capsys.readouterr().out
    assert "nan" not in table and "inf " not in table
    for row in ("base training step", "ControlNet training step", "memory", "share of time", "16 pictures", "import"):
        assert row in table


def test_gradients_that_the_caller_switched_off_are_counted():
    """What autograd keeps was missing without a word, and the arithmetic was a traceback."""
    network = nn.Linear(10, 20)

    def loss(network, generator):
        return network(torch.ones(3, 10)).square().sum()

    expected = cost.memory(network, loss), cost.flops(network, loss)
    for without in (torch.no_grad, torch.inference_mode):
        with without():
            assert (cost.memory(network, loss), cost.flops(network, loss)) == expected
    assert expected[0] > 4 * 4 * 220  # weights, gradients and two moments alone


def test_a_step_that_computes_nothing_has_no_share():
    with pytest.raises(Problem, match="computes nothing with torch"):
        cost.share_in_kernels(lambda: None, rounds=1)


def test_measuring_leaves_the_networks_as_they_are():
    network = seeded(0, UNet)
    before = fingerprint(network.state_dict())
    cost.relative_costs({"base": (network, base_loss)}, rounds=1)
    assert fingerprint(network.state_dict()) == before
    assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.slow
def test_the_import_is_timed_from_any_folder(tmp_path, monkeypatch):
    """A notebook may have put the package on sys.path alone."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert cost.import_seconds(rounds=1) > 0


def test_a_row_of_one_value_is_shown(capsys):
    cost.show_row("x", [0.1])
    assert "100.00 ms  (100.00 .. 100.00)" in capsys.readouterr().out
