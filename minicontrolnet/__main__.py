"""python -m minicontrolnet train | sample | evaluate | speed"""

import argparse
import platform
import sys
import time
from pathlib import Path

import torch
from torch import nn

from .conditions import CHANNELS
from .controlnet import ControlNet, guided, steer
from .diffusion import STEPS, ddim
from .drawings import edges_from_drawing, edges_from_picture, palette_from_picture
from .errors import Problem
from .evaluation import GUIDANCE, show_scores
from .metrics import ShapeClassifier, classifier_loss
from .options import device, number, problems_in_one_sentence
from .pretrained import load_base, load_classifier, load_control, save_weights, seeded
from .shapes import to_image, tokenize
from .training import BATCH, Loss, base_loss, control_loss, train, write_atomically
from .unet import UNet

# Steps and learning rate of the weights that ship; "shapes" is the classifier of metrics.py.
RECIPES = {"base": (12000, 2e-3), "edge": (4000, 1e-3), "palette": (4000, 1e-3), "shapes": (400, 3e-3)}


def train_command(args: argparse.Namespace) -> None:
    """Train the base or a ControlNet; the state to resume from is saved beside the weights."""
    full, lr = RECIPES[args.what]
    steps, out = args.steps or full, args.out or Path("checkpoints") / f"{args.what}.pt"
    state = out.with_suffix(".train.pt")
    if state.exists() and not args.resume:
        raise Problem(f"{state} holds an earlier run; give --resume to go on with it,"
                      " or --out FILE to leave it and start another")
    network, loss = what_to_train(args)
    begin = time.perf_counter()
    try:
        average = train(network, loss, steps, lr=lr, seed=args.seed, path=state,
                        resume=args.resume, progress=f"training {args.what}")
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop}; saved in {state}; the same command with --resume goes on") from None
    mark = save_weights(average, args.what, out)
    write_recipe(out.with_suffix(".txt"), steps, lr, args.seed, time.perf_counter() - begin, mark)
    print(f"wrote {out} and, beside it, how it was made")


def write_recipe(path: Path, steps: int, lr: float, seed: int, seconds: float, mark: str) -> None:
    """Write the text file that stands beside a file of weights."""
    lines = {
        "command": "python -m minicontrolnet " + " ".join(sys.argv[1:]),
        "steps, batch, learning rate, seed": f"{steps}, {BATCH}, {lr}, {seed}",
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "minutes": f"{seconds / 60:.1f}",
        "fingerprint": mark,
    }
    with write_atomically(path) as file:
        file.write("".join(f"{name}: {value}\n" for name, value in lines.items()).encode())


def what_to_train(args: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """The new network and the loss that trains it."""
    if args.what == "base":
        return seeded(args.seed, UNet).to(args.device), base_loss
    if args.what == "shapes":
        return seeded(args.seed, ShapeClassifier), classifier_loss
    base = load_base(args.base_weights, args.device)
    control = seeded(args.seed, ControlNet, base, CHANNELS[args.what])
    return control.to(args.device), control_loss(base, args.what)


def sample_command(args: argparse.Namespace) -> None:
    """Draw pictures for a prompt, with any conditions, and save them beside those."""
    from . import figures  # matplotlib takes longer to import than all the rest

    prompt = tokenize(args.prompt).repeat(args.count, 1)
    shown = {}
    if args.edge or args.edge_from:
        shown["edge"] = edges_from_drawing(args.edge) if args.edge else edges_from_picture(args.edge_from)
    if args.palette:
        shown["palette"] = palette_from_picture(args.palette)
    base = load_base(device=args.device)
    steered = [steer(load_control(kind, base), condition.to(args.device), args.conditioning_scale)
               for kind, condition in shown.items()]
    noise = torch.randn(args.count, 3, 32, 32, generator=torch.Generator().manual_seed(args.seed))
    model = guided(base, prompt.to(args.device), args.guidance_scale, *steered)
    pictures = ddim(model, noise.to(args.device), args.steps, progress=True)
    figures.save_sample(shown, to_image(pictures), args.prompt, args.out)
    print(f"wrote {args.out}")


def evaluate_command(args: argparse.Namespace) -> None:
    """Print the scores of the weights, each between its ceiling and its floor."""
    base = load_base(args.base_weights)
    kinds = {"edge": args.edge_weights, "palette": args.palette_weights}
    wanted = list(CHANNELS) if args.only is None else args.only
    controls = {kind: load_control(kind, base, path) for kind, path in kinds.items() if kind in wanted}
    show_scores(base, controls, load_classifier(), args.count)


def speed_command(args: argparse.Namespace) -> None:
    """Print the speed table of this machine."""
    from .speed import show_speed

    show_speed()


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m minicontrolnet", description="ControlNet in small.")
    commands = whole.add_subparsers(required=True, metavar="train | sample | evaluate | speed")
    add_train(commands.add_parser("train", help="train the base, or a ControlNet on the locked base"))
    add_sample(commands.add_parser("sample", help="draw pictures for a prompt and conditions"))
    add_evaluate(commands.add_parser("evaluate", help="scores on held-out pictures"))
    command = commands.add_parser("speed", help="times and memory on this machine")
    command.set_defaults(run=speed_command)
    return whole


def add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=list(RECIPES))
    command.add_argument("--steps", type=number(int, 1, 10**7), help="default: the recipe that ships")
    command.add_argument("--seed", type=number(int, 0, 2**31), default=0)
    command.add_argument("--device", type=device, default="auto")
    command.add_argument("--out", type=Path, help="default: checkpoints/base.pt and so on")
    command.add_argument("--base-weights", type=Path, help="default: the base that ships")
    command.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    command.set_defaults(run=train_command)


def add_sample(command: argparse.ArgumentParser) -> None:
    edges = command.add_mutually_exclusive_group()
    command.add_argument("--prompt", default="", help='such as "red star on blue"; words may be missing')
    edges.add_argument("--edge", type=Path, metavar="FILE", help="a line drawing: one closed outline")
    edges.add_argument("--edge-from", type=Path, metavar="FILE", help="a picture whose edges to take")
    command.add_argument("--palette", type=Path, metavar="FILE", help="a picture whose colours to take")
    command.add_argument("--count", type=number(int, 1, 256), default=8)
    command.add_argument("--steps", type=number(int, 1, STEPS), default=25)
    command.add_argument("--guidance-scale", type=number(float, -100, 100), default=GUIDANCE)
    command.add_argument("--conditioning-scale", type=number(float, -100, 100), default=1.0)
    command.add_argument("--seed", type=number(int, 0, 2**31), default=0)
    command.add_argument("--device", type=device, default="auto")
    command.add_argument("--out", type=Path, default=Path("outputs/sample.png"))
    command.set_defaults(run=sample_command)


def add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--count", type=number(int, 2, 10**5), default=256)
    command.add_argument("--only", nargs="*", choices=list(CHANNELS), help="which ControlNets; none given: the base alone")
    for kind in ["base", "edge", "palette"]:
        command.add_argument(f"--{kind}-weights", type=Path, metavar="FILE", help="default: those that ship")
    command.set_defaults(run=evaluate_command)


def main(words: list[str] | None = None) -> None:
    args = parser().parse_args(words)
    with problems_in_one_sentence():
        args.run(args)


if __name__ == "__main__":
    main()
