"""The lines for diffusers in lessons/README.md, run as they stand. Skipped where diffusers is not installed."""

import re
from pathlib import Path

import pytest
import torch

from minicontrolnet.measure.diagnosis import cause_of, verdict_of

diffusers = pytest.importorskip("diffusers")

PAGE = Path(__file__).parents[2] / "lessons" / "README.md"
LINES = next(code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
             if "down_block_additional_residuals" in code)
N = 8


@pytest.fixture
def examined():
    """A function that runs the page's lines on a small ControlNetModel, after some steps; returns the findings.

    ``spoil`` is called with the ControlNetModel and the UNet2DConditionModel before the training.
    """
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=8).requires_grad_(False)
    net = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4, 8))
    noise, words = torch.randn(2, N, 4, 8, 8), torch.randn(N, 3, 8)
    names = {"unet": unet, "net": net, "xt": noise[0], "eps": noise[1], "t": torch.arange(N) * 100 + 50,
             "words": words, "condition": (torch.rand(N, 3, 64, 64) > 0.9).float()}
    shown = LINES.replace("show_findings(", "findings = (")

    def run(spoil=None, steps=0):
        if spoil:
            spoil(net, unet)
        exec(shown, names)  # defines base and control as well
        learn = [p for p in net.parameters() if p.requires_grad]
        optimiser = torch.optim.Adam(learn, lr=1e-3)
        inputs = names["xt"], names["t"], words
        for _ in range(steps):
            optimiser.zero_grad()
            output = names["base"](*inputs, names["control"](*inputs, names["condition"]))
            (output - names["eps"]).square().mean().backward()
            optimiser.step()
        exec(shown, names)
        return names["findings"]

    return run


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_new_one_is_not_ill(steps, examined):
    findings = examined(steps=steps)
    assert cause_of(findings) == "" and verdict_of(findings) in {"healthy", "untrained"}
    order = next(finding for finding in findings if "order" in finding.question and "gradients" in finding.question)
    assert order.verdict == "healthy" and "time_embedding" in order.found


@pytest.mark.parametrize("steps", [0, 3])
def test_a_frozen_copy_is_named(steps, examined):
    def freeze(net, unet):
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name.startswith("controlnet_"))

    findings = examined(freeze, steps)
    assert verdict_of(findings) == "broken" and cause_of(findings) == "frozen copy"


def test_shared_storage_is_named(examined):
    def share(net, unet):
        net.down_blocks = unet.down_blocks
        net.mid_block = unet.mid_block
        net.requires_grad_(True)

    findings = examined(share)
    assert verdict_of(findings) == "broken" and cause_of(findings) == "shared storage"
