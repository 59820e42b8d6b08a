"""The capstone: a condition of your own, trained and graded.

    python lessons/exercises/capstone.py [FILE] [--steps 1500]

FILE is answers/capstone.py, made if it is not there: read it, write down what you
expect, and change its condition. It is checked, a ControlNet learns it on the locked
base in a few minutes, and what it draws is graded. This runs the code in FILE.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = map(str, Path(__file__).resolve().parents[1:3])

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from exercises.checking import ANSWERS, blame, load  # noqa: E402
from minicontrolnet import (Batch, ControlNet, Paired, UNet, control_loss,  # noqa: E402
                            figures, gap, held_out, load_base, mask_iou, mask_of,
                            paired, palette, palette_error, pose_errors, random_batch,
                            sample, seeded, train)
from minicontrolnet.conditions import Kind  # noqa: E402
from minicontrolnet.evaluation import HELD_OUT  # noqa: E402
from minicontrolnet.files import Problem, check_place, write_atomically  # noqa: E402
from minicontrolnet.options import device, in_range, tell_problems  # noqa: E402
from minicontrolnet.shapes import SIZE  # noqa: E402

TEMPLATE = '''\
"""My condition: a blurred mask.

I expect, written before training: the place is followed to 2 pixels without a word;
which shape it is cannot be told from a blur, so the mask IoU stays below 0.8.
"""

import torch.nn.functional as F

CHANNELS = 1


def condition(batch, generator):
    """What n pictures say that words cannot: (n, CHANNELS, 64, 64) in [0, 1].

    batch.image (n, 3, 64, 64) and batch.mask (n, 1, 64, 64) are in [0, 1]; batch.scenes
    holds all that is true of them, see minicontrolnet/shapes.py. Randomness comes from
    the generator alone, so that the same state gives the same condition.
    """
    blurred = F.avg_pool2d(batch.mask, 17, stride=1, padding=8)
    return blurred
'''
DDIM_STEPS = 20
USED = 1e-3  # a shuffle gap below this is next to nothing, whatever its interval
Scores = dict[str, Tensor]  # one number for each picture
CEILING = {"mask IoU": 1.0, "place error": 0.0, "tilt error": 0.0, "palette error": 0.0}


class Own(NamedTuple):
    """A learner's condition, checked."""

    channels: int
    of: Kind  # without a generator the same for the same pictures


def read_condition(path: Path) -> Own:
    """Load FILE and check its condition; raises Problem, in words for its author."""
    try:
        module = load(path)
        channels, function = module.CHANNELS, module.condition
        for n in (1, 5):
            check_condition(function, channels, n)
    except Problem:
        raise
    except FileNotFoundError:
        raise Problem(f"{path} does not exist; without FILE one is made") from None
    except (Exception, SystemExit) as error:
        where, said = blame(error, path)
        raise Problem(f"{where}: {said}; mend that, and run this again") from None

    def of(batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        generator = generator or torch.Generator().manual_seed(0)
        return function(batch, generator).detach().float()

    return Own(channels, of)


def check_condition(function: Kind, channels: int, n: int) -> None:
    """Raise Problem unless n pictures get conditions that a network can learn from."""
    if type(channels) is not int or not 1 <= channels <= 16:
        raise Problem(f"CHANNELS is {channels!r}; give a whole number from 1 to 16")
    batch = random_batch(n, torch.Generator().manual_seed(n))
    before = batch.map(Tensor.clone)
    one, other = (function(batch, torch.Generator().manual_seed(7)) for _ in range(2))
    wanted = (n, channels, SIZE, SIZE)
    if not isinstance(one, Tensor) or one.shape != wanted:
        given = tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__
        raise Problem(f"condition gives {given} for {n} pictures; give a tensor"
                      f" {wanted}")
    if not (one.isfinite().all() and one.min() >= 0 and one.max() <= 1):
        raise Problem(f"condition has values from {one.min():.3g} to {one.max():.3g};"
                      " bring them to 0 .. 1, for example by clamp(0, 1)")
    if not torch.equal(one, other):
        raise Problem("condition differs for the same pictures and generator state;"
                      " take all randomness from the generator that it is given")
    if not all(map(torch.equal, before[:4], batch[:4])):
        raise Problem("condition changes the batch that it is given; work on a clone")
    if n > 1 and all(torch.equal(one[0], each) for each in one[1:]):
        raise Problem("condition is the same for every picture, so it says nothing;"
                      " make it depend on batch")


# %% Grading


def scores(images: Tensor, truth: Batch) -> Scores:
    """How far pictures are what the truth is; "mask IoU" up is better, errors down.

    Place in pixels, tilt in degrees (0 for circles); palettes are means of 16 cells.
    """
    degrees, pixels = pose_errors(images, truth.scenes)
    return {"mask IoU": mask_iou(mask_of(images), truth.mask), "place error": pixels,
            "tilt error": degrees.nan_to_num(0.0),
            "palette error": palette_error(images, palette(truth.image))}


def compare(own: Scores, other: Scores) -> dict[str, Paired]:
    """For each score the interval of by how much ``own`` is better, over pictures."""
    return {name: paired(own[name] - other[name] if name == "mask IoU"
                         else other[name] - own[name]) for name in own}


def points(gaps: Paired, better: dict[str, Paired], own: Scores, free: Scores) -> int:
    """0 to 3: it is used; a score is better than without; by half the way or more."""
    good = [name for name, it in better.items() if it.low > 0]
    share = lambda name: ((own[name].mean() - free[name].mean())
                          / (CEILING[name] - free[name].mean()))
    return (gaps.low > USED) + bool(good) + any(share(name) >= 0.5 for name in good)


def grade(base: UNet, control: ControlNet, condition: Own, truth: Batch, noise: Tensor,
          ddim_steps: int) -> tuple[dict, dict[str, Tensor]]:
    """What was measured, and pictures by arm."""
    shown = [(control, condition.of(truth))]
    draw = lambda words, controls: sample(base, words, noise, controls,
                                          steps=ddim_steps, progress="drawing").cpu()
    images = {"no control, no words": draw("", ()),
              "condition, no words": draw("", shown),
              "condition, right words": draw(truth.prompt, shown)}
    found = {arm: scores(pictures, truth) for arm, pictures in images.items()}
    neighbour = truth.map(lambda tensor: tensor.roll(1, 0))
    found["a neighbour's (floor)"] = scores(images["condition, no words"], neighbour)
    found["real pictures (ceiling)"] = scores(truth.image, truth)
    free, own = found["no control, no words"], found["condition, no words"]
    better = compare(own, free)
    gaps = paired([gap(base, control, condition.of, len(noise) // 2, seed=HELD_OUT + i)
                   for i in range(4)])
    table = {arm: {name: each.mean().item() for name, each in one.items()}
             for arm, one in found.items()}
    return {"scores": table, "better than no control": better, "shuffle gap": gaps,
            "points": points(gaps, better, own, free)}, images


def report(measured: dict) -> None:
    """Print the table, what it says, and the points."""
    arms = measured["scores"]
    print(f"\n{'':26}" + "".join(f"{name:>15}" for name in CEILING))
    for arm, one in arms.items():
        print(f"{arm:26}" + "".join(f"{value:15.3f}" for value in one.values()))
    above = Paired(*(end - USED for end in measured["shuffle gap"]))
    print(f"\nthe condition is used: {above.verdict}, shuffle gap"
          f" {measured['shuffle gap']}, to be above {USED}")
    for name, it in measured["better than no control"].items():
        print(f"{name} better than without control: {it.verdict}, {it}")
    print(f"\npoints: {measured['points']} of 3 (it is used; a score is better than"
          "\nwithout control, and has come half of the way to real pictures)")


def draw_figure(condition: Tensor, truth: Batch, images: dict[str, Tensor],
                measured: dict, path: Path) -> None:
    """A row for each arm, a column for each of six pictures, below the conditions."""
    if condition.shape[1] not in (1, 3):
        condition = condition.mean(1, keepdim=True)
    rows = {"condition": condition, "real": truth.image} | images
    tiles = [pictures[:6].expand(-1, 3, -1, -1) for pictures in rows.values()]
    iou = [f"{measured['scores'][arm]['mask IoU']:.2f}" for arm in images]
    figures.save(figures.grid(
        torch.cat(tiles), len(tiles[0]),
        f"Without words: mask IoU {iou[0]}, with your condition {iou[1]}",
        figures.captions(truth.prompt[:6], lines=3),
        [arm.replace(", ", ",\n") for arm in rows]), path)


def options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python lessons/exercises/capstone.py",
                                     description="Train and grade your own condition.")
    parser.add_argument("file", type=Path, nargs="?", default=ANSWERS / "capstone.py")
    parser.add_argument("--steps", type=in_range(int, 1, 10**6), default=1500)
    parser.add_argument("--count", type=in_range(int, 4, 1024), default=32,
                        help="held-out pictures to be graded on")
    parser.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    parser.add_argument("--device", type=device, default="auto")
    parser.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    tell_problems()
    args = options(words)
    if args.file == ANSWERS / "capstone.py" and not args.file.exists():
        with write_atomically(args.file) as file:
            file.write(TEMPLATE.encode())
        print(f"made {args.file}: change it, and run this again\n")
    condition = read_condition(args.file.resolve())
    check_place(args.out / "capstone.json")
    base = load_base(device=args.device)
    control = seeded(args.seed, ControlNet, base, condition.channels)
    control = train(control, control_loss(base, condition.of), args.steps, lr=1e-3,
                    seed=args.seed, progress="training")
    truth, noise = held_out(args.count)
    measured, images = grade(base, control, condition, truth, noise, DDIM_STEPS)
    report(measured)
    made = {"file": str(args.file), "steps": args.steps, "seed": args.seed}
    with write_atomically(args.out / "capstone.json") as file:
        file.write(json.dumps(made | measured, indent=1).encode())
    path = args.out / "capstone.png"
    draw_figure(condition.of(truth), truth, images, measured, path)
    print(f"   figure: {path}")


if __name__ == "__main__":
    main()
