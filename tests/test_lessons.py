"""Every lesson runs from a plain clone in quick mode, says what it must, and leaves its figure."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from minicontrolnet import (ControlNet, UNet, detect_edges, fingerprint, fresh, held_out, load_base, load_control, lock, seeded,
                            to_grid)

ROOT = Path(__file__).parents[1]
LESSONS = sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py"))


def run(lesson: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DISPLAY")}
    return subprocess.run([sys.executable, str(lesson), *map(str, words)], cwd=cwd, text=True,
                          capture_output=True, timeout=120, env=environment)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_in_quick_mode(lesson, lesson_run):
    done, folder = lesson_run(lesson.stem)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    for part in ("PREDICT", "RESULT", "--quick is a smoke run", "the answer is"):
        assert part in done.stdout
    with Image.open(folder / "outputs" / f"{lesson.stem}.png") as figure:
        assert min(figure.size) > 500


@pytest.mark.parametrize("words, said", [
    (["--steps", "0"], "whole number from 1"), (["--device", "tpu"], "is not a device"),
    (["--quick", "--full"], "not allowed with"), (["--out", "file/below"], "cannot write")])
def test_bad_options_get_one_sentence(words, said, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = run(LESSONS[0], *words, cwd=tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr and said in done.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]


# %% What the lessons define themselves, and the map names


@pytest.fixture
def lesson_module(tmp_path, monkeypatch):
    """A function from a lesson's name to its module; nothing but its options is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "lessons"))

    def load(name):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "--quick"])
        spec = importlib.util.spec_from_file_location(f"lesson_{name}", ROOT / "lessons" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_the_arms_of_the_ablation_start_as_they_say(lesson_module):
    """All give 13 controls of the base's shapes; only the Gaussian ones change the base at step 0."""
    lesson, base = lesson_module("08_ablations"), load_base()
    truth, noise = held_out(2)
    wanted = [h.shape for h in base.encoder(noise, base.embedding(torch.tensor([5, 5]), truth.prompt))]
    arms = {name: seeded(3, build, base) for name, build in lesson.ARMS.items()}
    for name, arm in arms.items():
        controls = arm(noise, torch.tensor([500, 500]), truth.prompt, detect_edges(truth.image))
        assert [c.shape for c in controls] == wanted, name
        assert (lesson.change_at_step_0(base, arm, truth, noise) == 0) == (not name.startswith("N(0")), name
    deepest = lambda name: arms[name].zero_convs[-1].weight.std().item()
    assert deepest("N(0, 1/fan_in)") == pytest.approx(64**-0.5, rel=0.05)
    assert deepest("N(0, 0.02^2)") == pytest.approx(0.02, rel=0.05)
    same = lambda name: torch.equal(arms[name].encoder.blocks[0].conv1.weight, base.encoder.blocks[0].conv1.weight)
    assert same("zero convs") and same("N(0, 0.02^2)") and not same("random copy")
    convs = [module for module in arms["lite"].convs if isinstance(module, torch.nn.Conv2d)]
    assert len(convs) == len(arms["lite"].convs) == 13  # one conv layer in place of each copied block


def test_conflicting_prompts_name_another_shape(lesson_module):
    """Fig. 8's four kinds: only the shape's word is wrong in a conflicting prompt, only the ground is said in an insufficient."""
    full = held_out(64)[0].prompt
    kinds = lesson_module("08_ablations").prompts(full)
    assert torch.equal(kinds["perfect"], full) and not kinds["none"].any()
    assert torch.equal(kinds["conflicting"][:, [0, 2]], full[:, [0, 2]])
    assert (kinds["conflicting"][:, 1] != full[:, 1]).all() and set(kinds["conflicting"][:, 1].tolist()) == {1, 2, 3, 4}
    assert torch.equal(kinds["insufficient"][:, 2], full[:, 2]) and not kinds["insufficient"][:, :2].any()


def test_an_ablation_is_decided_only_if_its_seeds_agree(lesson_module):
    """Two seeds of four pictures: both ahead, both behind, one of each, and too wide to tell."""
    against = lesson_module("08_ablations").against
    base = [0.5, 0.6, 0.7, 0.8] * 2
    arm = lambda *shifts: {"none": [b - shift for b, shift in zip(base, shifts)], "runs": [{}, {}]}
    numbers = {"zero convs": {"none": base, "runs": [{}, {}]},
               "behind": arm(*[0.1, 0.11, 0.09, 0.1] * 2), "ahead": arm(*[-0.1, -0.11, -0.09, -0.1] * 2),
               "mixed": arm(0.1, 0.11, 0.09, 0.1, -0.1, -0.11, -0.09, -0.1), "wide": arm(0.3, -0.3, 0.2, -0.2, 0.1, 0.1, 0.1, 0.11)}
    said = {name: against(numbers, name, "none")[0] for name in list(numbers)[1:]}
    assert said == {"behind": "confirmed", "ahead": "contradicted", "mixed": "undecided", "wide": "undecided"}
    assert against(numbers, "mixed", "none")[1] == pytest.approx([0.1, -0.1])


def test_the_rise_of_a_curve(lesson_module):
    """Of a straight line it is at 10, 50 and 90 % of the way; of a jump all three lie in one interval."""
    rise = lesson_module("09_evaluation").rise
    steps = list(range(0, 101, 10))
    assert rise({"step": steps, "IoU": [s / 200 + 0.3 for s in steps]}) == pytest.approx((10, 50, 90))
    low, half, high = rise({"step": steps, "IoU": [0.3] * 6 + [0.8] * 5})
    assert 50 < low < half < high < 60


def test_few_pictures_are_always_the_same(lesson_module):
    """A batch comes from the n pictures alone, image, x0 and prompt together."""
    pictures = lesson_module("09_evaluation").only(3)
    generator, seen = torch.Generator().manual_seed(0), set()
    for _ in range(6):
        batch = pictures(generator)
        assert torch.equal(to_grid(batch.image) * 2 - 1, batch.x0)
        seen |= {(x0.sum().item(), *words.tolist()) for x0, words in zip(batch.x0, batch.prompt)}
    assert len(seen) == 3


def test_the_difference_of_two_bases_moves_a_copy(lesson_module):
    """An untrained copy of A, moved from A to B, is a copy of B; what training added stays; A = B moves nothing."""
    lesson, a, b = lesson_module("10_transfer"), load_base(), lock(seeded(1, UNet))
    control = load_control("edge", a)
    copied = lesson.moved(ControlNet(a), a, b)
    for name, weight in b.encoder.state_dict().items():
        torch.testing.assert_close(copied.encoder.state_dict()[name], weight, atol=1e-5, rtol=0)
    moved = lesson.moved(control, a, b)
    learned = lambda network, base: network.encoder.conv_in.weight - base.encoder.conv_in.weight
    torch.testing.assert_close(learned(moved, b), learned(control, a), atol=1e-5, rtol=0)
    assert fingerprint(lesson.moved(control, a, a).state_dict()) == fingerprint(control.state_dict())


def test_pale_pictures_are_half_way_to_white(lesson_module):
    """x0 of a pale picture is half as far from 1 as it was."""
    lesson = lesson_module("10_transfer")
    seed = lambda: torch.Generator().manual_seed(4)
    torch.testing.assert_close(1 - lesson.pale(seed()).x0, (1 - fresh(seed()).x0) / 2)
