"""The capstone: a condition of your own, which a ControlNet learns and which is then graded.

    python lessons/exercises/capstone.py [FILE] [--steps 1500]

FILE is answers/capstone.py by default. If it does not exist, the program writes a template there
and ends. Read it, write down what you expect, and replace its condition by your own. Then run the
program again. It checks that you did both, trains a ControlNet with the condition on the locked
base for a few minutes, and grades the pictures that it generates. It runs the code in FILE.
"""

import argparse
import ast
import json
import os
import sys
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])

from exercises.checking import ANSWERS, SECONDS, OutOfTime, explain_error, load, time_limit  # noqa: E402
from minicontrolnet import (Batch, Control, ControlNet, Paired, Problem, Training, UNet,  # noqa: E402
                            control_loss, gap, held_out, load_base, mask_iou, mask_of, paired, palette,
                            palette_error, pose_errors, random_batch, sample, seeded)
from minicontrolnet.measure.scores import HELD_OUT  # noqa: E402
from minicontrolnet.run.files import check_place, write_and_keep  # noqa: E402
from minicontrolnet.run.options import any_path, device, in_range, read_words, report_problems  # noqa: E402
from minicontrolnet.shapes import SHAPES, SIZE  # noqa: E402
from minicontrolnet.training import BATCH_SIZE  # noqa: E402

import torch  # noqa: E402  # the package comes before torch, so that Ctrl-C is quiet while torch loads
from torch import Tensor, nn  # noqa: E402
from tqdm import tqdm  # noqa: E402

TEMPLATE = '''\
"""My condition: a blurred mask.

I expect (written before training): without a prompt the shapes are in the right place, to within
2 pixels. A blurred mask hides which shape it is, so the mask IoU stays below 0.8.
"""

import torch.nn.functional as F

CHANNELS = 1


def condition(batch, generator):
    """Return what words cannot say about n pictures: a tensor (n, CHANNELS, 64, 64) in [0, 1].

    batch.image (n, 3, 64, 64) and batch.mask (n, 1, 64, 64) are in [0, 1]. batch.scenes holds
    everything that is true of the pictures, see minicontrolnet/shapes.py. Take random numbers from
    the generator alone, so that the same generator state gives the same condition.
    """
    blurred = F.avg_pool2d(batch.mask, 17, stride=1, padding=8)
    return blurred
'''
COMMAND = "python lessons/exercises/capstone.py"
FEWEST_LETTERS = 10  # an expectation has at least so many; "..." and "to do" have fewer
DDIM_STEPS = 20
USED = 1e-3  # a ControlNet with a shuffle gap below this hardly uses its condition, whatever the interval says
ROUNDING = 1e-5  # values that leave [0, 1] by no more than this are clamped
Function = Callable[[Batch, torch.Generator], Tensor]
Scores = dict[str, Tensor]  # one number for each picture
CEILING = {"mask IoU": 1.0, "place error": 0.0, "tilt error": 0.0, "palette error": 0.0}


# %% The condition


class Own(NamedTuple):
    """A learner's condition after the check."""

    channels: int
    function: Function
    path: Path
    expectation: str

    def of(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The condition (n, channels, 64, 64) of a batch. Without a generator it is always the same.

        Raises Problem if it is not what a ControlNet can use.
        """
        copy = batch.map(Tensor.clone)  # whatever the function does, our batch stays as it is
        generator = generator or torch.Generator().manual_seed(0)
        try:
            with time_limit(SECONDS):
                condition = self.function(copy, generator)
            check_values(condition, (len(batch.image), self.channels, SIZE, SIZE))
            unchanged = all(map(torch.equal, tensors_of(batch), tensors_of(copy)))
        except Problem:
            raise
        except (Exception, SystemExit, OutOfTime) as error:
            raise explained(error, self.path) from None
        if not unchanged:
            raise Problem("condition changes the batch that it is given; work on a clone, such as batch.mask.clone()")
        return condition.detach().float().clamp(0, 1)


def tensors_of(batch: Batch) -> list[Tensor]:
    *tensors, scenes = batch
    return [*tensors, *scenes]


def explained(error: BaseException, path: Path) -> Problem:
    """A Problem that says where the learner's code failed."""
    where, what = explain_error(error, path)
    return Problem(f"{where}: {what.rstrip('.')}; correct this, and run the program again")


def read_condition(path: Path) -> Own:
    """Load FILE and check its condition. Raises Problem, in words for the author of the condition."""
    if not os.path.exists(path):
        raise Problem(f"{path} does not exist; without FILE the program writes a template")
    if not os.path.isfile(path):
        raise Problem(f"{path} is a folder or another thing that is not a file; give the Python file with your"
                      " condition")
    try:
        with time_limit(SECONDS):
            module = load(path)
    except (Exception, SystemExit, OutOfTime) as error:
        raise explained(error, path) from None
    if not hasattr(module, "CHANNELS"):
        raise Problem(f"{path.name} has no CHANNELS; write how many channels your condition has, such as CHANNELS = 1,"
                      " outside of all functions")
    if not callable(getattr(module, "condition", None)):
        raise Problem(f"{path.name} has no function condition; write def condition(batch, generator), as in the"
                      f" template, which {COMMAND} writes where there is no file")
    own = Own(module.CHANNELS, module.condition, path, expectation_in(docstring_of(path)))
    if type(own.channels) is not int or not 1 <= own.channels <= 16:
        raise Problem(f"CHANNELS is {own.channels!r}; give a whole number from 1 to 16")
    for n in (1, BATCH_SIZE):
        check_condition(own, n)
    return own


def docstring_of(path: Path) -> str | None:
    """The text at the top of a Python file. With ``python -OO`` a module's __doc__ is None."""
    return ast.get_docstring(ast.parse(path.read_bytes()))


def expectation_in(docstring: str | None) -> str:
    """The text behind "I expect" at the top of a file, or all of it if these words are not there."""
    text = " ".join((docstring or "").split())
    return text.split("I expect", 1)[-1].removeprefix(" (written before training)").strip(": ")


def check_expectation(own: Own) -> None:
    """Raise Problem unless the author wrote down what to expect. The template may be tried as it is."""
    if own.path.read_bytes() == TEMPLATE.encode():
        return
    is_the_templates = own.expectation == expectation_in(TEMPLATE.split('"""')[1])
    if is_the_templates or sum(map(str.isalnum, own.expectation)) < FEWEST_LETTERS:
        raise Problem(f"{own.path.name} has no expectation of your own; write down at its top, between"
                      ' """ and """, what you expect of your condition, and train it then')


def check_condition(own: Own, n: int) -> None:
    """Raise Problem unless the conditions of n pictures are repeatable and differ from picture to picture."""
    batch = random_batch(n, torch.Generator().manual_seed(n))
    one = own.of(batch, torch.Generator().manual_seed(7))
    other = own.of(batch, torch.Generator().manual_seed(7))
    if not torch.equal(one, other):
        raise Problem("condition gives two results for the same pictures and the same generator state; take all"
                      " random numbers from the generator that it is given")
    random = not torch.equal(one, own.of(batch, torch.Generator().manual_seed(8)))
    if not random and (each_alone(own, batch) - one).abs().max() > 1e-4:
        raise Problem("condition of a picture depends on the other pictures of its batch, or on its place among them;"
                      " compute it from each picture alone")
    if n > 1 and all(torch.equal(one[0], each) for each in one[1:]):
        raise Problem("condition is the same for every picture, so it carries no information; make it depend on batch")


def each_alone(own: Own, batch: Batch) -> Tensor:
    """The conditions of pictures that are given one by one, so that each is the first and only one of its batch."""
    conditions = []
    for i in range(len(batch.image)):
        picture = batch.map(itemgetter(slice(i, i + 1)))
        conditions.append(own.of(picture, torch.Generator().manual_seed(7)))
    return torch.cat(conditions)


def check_values(condition: Any, shape: tuple[int, ...]) -> None:
    """Raise Problem unless this is a tensor of the shape, with finite values in [0, 1]."""
    if not isinstance(condition, Tensor) or condition.shape != shape:
        given = tuple(condition.shape) if isinstance(condition, Tensor) else type(condition).__name__
        raise Problem(f"condition returns {given} for {shape[0]} pictures; return a tensor {shape}")
    low, high = condition.detach().float().aminmax()
    if not (-ROUNDING <= low and high <= 1 + ROUNDING):  # also true for nan
        raise Problem(f"condition has values from {low:.3g} to {high:.3g}; bring them to [0, 1], for example by"
                      " clamp(0, 1)")


def train(base: UNet, own: Own, steps: int, seed: int) -> nn.Module:
    """Train a ControlNet with this condition on the locked base."""

    def loss(control: ControlNet, generator: torch.Generator) -> Tensor:

        def kind(batch: Batch) -> Tensor:
            return own.of(batch, generator)  # so random conditions differ from batch to batch

        return control_loss(base, kind)(control, generator)

    control = seeded(seed, ControlNet, base, own.channels)
    training = Training(control, loss, steps, lr=1e-3, seed=seed)
    for _ in tqdm(training, "training"):
        pass
    return training.averaged


# %% Grading


def scores(images: Tensor, truth: Batch) -> Scores:
    """How close pictures come to the truth. A high mask IoU is good, and low errors are.

    The place error is in pixels, and the tilt error in degrees (0 for circles). The palette error
    is a mean over the 16 cells. A picture that shows no shape counts as off by half a picture, and
    by the largest tilt that a square can be off.
    """
    degrees, pixels = pose_errors(images, truth.scenes)
    is_blank = pixels.isnan()
    has_tilt = truth.scenes.shape != list(SHAPES).index("circle")
    return {"mask IoU": mask_iou(mask_of(images), truth.mask), "place error": pixels.nan_to_num(SIZE / 2),
            "tilt error": degrees.masked_fill(is_blank & has_tilt, 45.0).nan_to_num(0.0),
            "palette error": palette_error(images, palette(truth.image))}


def compare(own: Scores, other: Scores) -> dict[str, Paired]:
    """For each score, by how much ``own`` is better than ``other``: an interval over the pictures."""
    better = {}
    for name in own:
        difference = own[name] - other[name]
        better[name] = paired(difference if name == "mask IoU" else -difference)
    return better


def points(gaps: Paired, better: dict[str, Paired], own: Scores, free: Scores) -> int:
    """The points, from 0 to 3.

    One point is for a condition that is used, and one for a score that is better than without
    control. One is for such a score that comes at least half of the way to its ceiling.
    """
    good = [name for name, interval in better.items() if interval.low > 0]
    half_way = False
    for name in good:
        start = free[name].mean()
        half_way |= bool((own[name].mean() - start) / (CEILING[name] - start) >= 0.5)
    return int(gaps.low > USED) + int(bool(good)) + int(half_way)


def grade(base: UNet, control: nn.Module, own: Own, truth: Batch, noise: Tensor,
          ddim_steps: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Everything that is measured, and the generated pictures of each arm."""
    used = [Control(control, own.of(truth))]

    def generate(prompt: str | Tensor, controls: list[Control]) -> Tensor:
        return sample(base, prompt, noise, controls, steps=ddim_steps, progress="sampling").cpu()

    images = {"no control, no words": generate("", []),
              "condition, no words": generate("", used),
              "condition, right words": generate(truth.prompt, used)}
    found = {arm: scores(pictures, truth) for arm, pictures in images.items()}
    neighbour = truth.map(lambda tensor: tensor.roll(1, 0))
    found["a neighbour's (floor)"] = scores(images["condition, no words"], neighbour)
    found["real pictures (ceiling)"] = scores(truth.image, truth)
    better = compare(found["condition, no words"], found["no control, no words"])
    gaps = paired([gap(base, control, own.of, len(noise) // 2, seed=HELD_OUT + i) for i in range(4)])
    table = {}
    for arm, one in found.items():
        table[arm] = {name: each.mean().item() for name, each in one.items()}
    earned = points(gaps, better, found["condition, no words"], found["no control, no words"])
    return {"scores": table, "better than no control": better, "shuffle gap": gaps, "points": earned}, images


def report(measured: dict[str, Any]) -> None:
    """Print the table of scores, the verdicts and the points."""
    print(f"\n{'':26}" + "".join(f"{name:>15}" for name in CEILING))
    for arm, one in measured["scores"].items():
        print(f"{arm:26}" + "".join(f"{value:15.3f}" for value in one.values()))
    gaps = measured["shuffle gap"]
    above = Paired(*(end - USED for end in gaps))
    print(f"\nthe condition is used (shuffle gap above {USED}): {above.verdict}, the gap is {gaps}")
    for name, interval in measured["better than no control"].items():
        print(f"the {name} is better than without control: {interval.verdict}, by {interval}")
    print(f"\npoints: {measured['points']} of 3. You get one point if the condition is used, one if a score is\n"
          "better than without control, and one if such a score comes half of the way to real pictures.")


def save_figure(condition: Tensor, truth: Batch, images: dict[str, Tensor], measured: dict[str, Any],
                path: Path) -> None:
    """Save a figure with a row for each arm and a column for each of six pictures, below their conditions."""
    from minicontrolnet.draw import figures  # matplotlib takes longer to import than all else

    if condition.shape[1] not in (1, 3):
        condition = condition.mean(1, keepdim=True)
    rows = {"condition": condition, "real": truth.image} | images
    tiles = [pictures[:6].expand(-1, 3, -1, -1) for pictures in rows.values()]
    arms = measured["scores"]
    without = arms["no control, no words"]["mask IoU"]
    with_it = arms["condition, no words"]["mask IoU"]
    figure = figures.grid(
        torch.cat(tiles), len(tiles[0]),
        f"Without words the mask IoU is {with_it:.2f} with your condition and {without:.2f} without control",
        figures.captions(truth.prompt[:6], lines=3), [arm.replace(", ", ",\n") for arm in rows])
    write_and_keep(path, figures.as_png(figure))


# %% The command


def read_options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND,
                                     description="Train and grade your own condition.")
    parser.add_argument("file", type=any_path, nargs="?", default=ANSWERS / "capstone.py")
    parser.add_argument("--steps", type=in_range(int, 1, 10**6), default=1500, help="training steps")
    parser.add_argument("--count", type=in_range(int, 4, 1024), default=32,
                        help="the number of held-out pictures to grade on")
    parser.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--out", type=any_path, default=Path("outputs"), metavar="DIR")
    return read_words(parser, words)


def main(words: list[str] | None = None) -> None:
    report_problems()
    args = read_options(words)
    if args.file == ANSWERS / "capstone.py" and not args.file.exists():
        write_and_keep(args.file, TEMPLATE.encode())
        print(f"A template is now in {args.file}. Write your condition there, and run this again. You may also run it"
              " as it is, to see how it works.")
        return
    own = read_condition(args.file.resolve())
    check_expectation(own)
    numbers, picture = args.out / "capstone.json", args.out / "capstone.png"
    check_place(numbers)
    check_place(picture)
    from minicontrolnet.draw import figures  # noqa: F401  # if matplotlib cannot start, that is told before any work

    base = load_base(device=args.device)
    control = train(base, own, args.steps, args.seed)
    truth, noise = held_out(args.count)
    measured, images = grade(base, control, own, truth, noise, DDIM_STEPS)
    report(measured)
    settings = {"file": str(args.file), "expectation": own.expectation, "steps": args.steps, "seed": args.seed}
    write_and_keep(numbers, json.dumps(settings | measured, indent=1).encode())
    save_figure(own.of(truth), truth, images, measured, picture)
    print(f"   figure: {picture}")


if __name__ == "__main__":
    main()
