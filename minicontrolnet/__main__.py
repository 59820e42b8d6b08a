"""python -m minicontrolnet board | train | sample | evaluate | speed"""

import argparse
import platform
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from .conditions import CHANNELS, stick_figure
from .controlnet import ControlNet
from .diffusion import TIMESTEPS
from .drawings import doubt, edges_from_picture, palette_from_picture, read_image, trace
from .evaluation import show_scores
from .files import Problem, check_place, in_use, load_file, write_atomically
from .metrics import ShapeClassifier, classifier_loss
from .options import device, file_to_write, in_range, tell_problems
from .parallel import first_does, processes, together
from .pretrained import fingerprint, load_base, load_classifier, load_control, save_weights, seeded
from .sampling import GUIDANCE, sample, seeded_noise
from .shapes import SIZE, random_batch, tokenize
from .training import BATCH_SIZE, Loss, base_loss, control_loss, train
from .unet import UNet

# Steps, batch and learning rate of the weights that ship; "shapes" is the classifier of metrics.py. At 2e-3
# the base learns no faster and its maps grow; one run of 12,000 steps ended in a base that ignores xt.
RECIPES = {"base": (10000, BATCH_SIZE, 1e-3), "edge": (4000, BATCH_SIZE, 1e-3),
           "palette": (4000, BATCH_SIZE, 1e-3), "pose": (4000, BATCH_SIZE, 1e-3), "shapes": (400, 64, 3e-3)}
SCALES = [0, 0.25, 0.5, 0.75, 1, 1.5, 2]  # of --grid scale


def train_command(args: argparse.Namespace) -> None:
    """Train the base or a ControlNet; the state to resume from is saved beside the weights."""
    steps, batch, args.lr = RECIPES[args.what]
    args.steps, args.batch = args.steps or steps, args.batch or batch
    args.out = args.out or Path("checkpoints") / f"{args.what}.pt"
    args.state = args.out.with_suffix(".train.pt")
    with together(args.device), ExitStack() as until_the_end:
        first_does(lambda: begin(args, until_the_end))
        network, loss, run = what_to_train(args)
        try:
            average = train(network, loss, args.steps, lr=args.lr, seed=args.seed, path=args.state,
                            resume=args.resume, run=run, progress=f"training {args.what}")
        except KeyboardInterrupt as stop:
            if not stop.args:  # pressed twice: nothing was saved
                raise
            raise KeyboardInterrupt(f"{stop}; saved in {args.state}; the same command with --resume goes on") from None
        first_does(lambda: write_weights(average, args))


def begin(args: argparse.Namespace, until_the_end: ExitStack) -> None:
    """Hold the files of a training; raises Problem if it could not write them, or another one does or did."""
    for path in args.out, args.state, args.out.with_suffix(".txt"):
        check_place(path)
    until_the_end.enter_context(in_use(args.state))
    if args.state.exists() and not args.resume:
        raise Problem(f"{args.state} holds an earlier run; give --resume to go on with it,"
                      " or --out FILE to leave it and start another")
    if args.what == "shapes" and args.batch != RECIPES["shapes"][1]:
        raise Problem(f"the classifier does not learn from {args.batch} pictures a step but from"
                      f" {RECIPES['shapes'][1]}; leave out --batch")


def write_weights(network: nn.Module, args: argparse.Namespace) -> None:
    """Write a trained network, and beside it a text file that tells how it was made."""
    mark, seconds = save_weights(network, args.what, args.out), load_file(args.state)["seconds"]
    shared = f" in each of {processes()} processes" if processes() > 1 else ""
    lines = {
        "command": "python -m minicontrolnet " + " ".join(sys.argv[1:]),
        "steps, batch, learning rate, seed": f"{args.steps}, {args.batch}, {args.lr}, {args.seed}",
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads{shared}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "minutes": f"{seconds / 60:.1f}",
        "fingerprint": mark,
    }
    with write_atomically(args.out.with_suffix(".txt")) as file:
        file.write("".join(f"{name}: {value}\n" for name, value in lines.items()).encode())
    print(f"wrote {args.out} and, beside it, how it was made")


def what_to_train(args: argparse.Namespace) -> tuple[nn.Module, Loss, dict[str, str | int]]:
    """The new network, the loss that trains it, and what both depend on."""
    run = {"network": args.what, "batch": args.batch}
    pictures = partial(random_batch, args.batch)
    new = lambda *build: first_does(lambda: seeded(args.seed, *build))
    if args.what == "base":
        return new(UNet).to(args.device), partial(base_loss, next_batch=pictures), run
    if args.what == "shapes":
        return new(ShapeClassifier), classifier_loss, run
    base = first_does(lambda: load_base(args.base_weights))
    control = new(ControlNet, base, CHANNELS[args.what]).to(args.device)
    loss = control_loss(base.to(args.device), args.what, next_batch=pictures)
    return control, loss, run | {"base": fingerprint(base.state_dict())}


def sample_command(args: argparse.Namespace) -> None:
    """Draw pictures for prompts, with any conditions, and save them beside those.

    Rows are prompts, columns are noises; with --grid scale a row is one prompt and one noise.
    """
    from . import figures  # matplotlib takes longer to import than all the rest

    prompts = args.prompt or [""]
    tokens = tokenize(prompts)  # better told now than after the files were read
    shown = asked_conditions(args)
    check_place(args.out)
    base = load_base(args.base_weights, args.device)
    nets = [load_control(kind, base, getattr(args, f"{kind}_weights")) for kind in shown]
    count = args.count or (1 if args.grid else 8)
    noise = seeded_noise(count, args.seed)
    noise, tokens = noise.repeat(len(prompts), 1, 1, 1), tokens.repeat_interleave(count, 0)
    strip = [sample(base, tokens, noise, [(net, shown[kind], scale) for net, kind in zip(nets, shown)],
                    args.guidance_scale, args.steps, in_both=args.in_both,
                    control_start=args.control_start, control_end=args.control_end, progress="sampling")
             for scale in (SCALES if args.grid else [args.conditioning_scale])]
    columns = len(SCALES) if args.grid else count if len(prompts) > 1 else None
    names = [name for prompt in prompts for name in [prompt] + [""] * (count - 1 if args.grid else 0)]
    figures.save_sample(shown, torch.stack(strip, 1).flatten(0, 1).cpu(), args.out, columns,
                        title=f'prompt: "{prompts[0]}"' if len(prompts) == 1 else "",
                        below=[f"scale {scale}" for scale in SCALES] if args.grid else (),
                        left=names if len(prompts) > 1 else ())
    print(f"wrote {args.out}")


def asked_conditions(args: argparse.Namespace) -> dict[str, Tensor]:
    """The conditions that a command's options ask for, each (1, c, 64, 64)."""
    shown = {}
    if args.edge:
        shown["edge"] = traced(args.edge)
    elif args.edge_from:
        shown["edge"] = edges_from_picture(args.edge_from)
    if "edge" in shown and (said := doubt(shown["edge"])):
        print(f"hint: {said}")
    if args.palette:
        shown["palette"] = palette_from_picture(args.palette)
    if args.pose:
        shown["pose"] = stick_figure(*torch.tensor(args.pose).view(2, 1, 2) * 2 / SIZE - 1)
    if args.grid and not shown:
        raise Problem("--grid scale compares strengths of control, and there is no condition;"
                      " give --edge FILE, --palette FILE or --pose")
    if args.control_start >= args.control_end:
        raise Problem("--control-start must be less than --control-end, else there is no control")
    return shown


def traced(path: Path) -> Tensor:
    """The edge map of a drawing; says so if the drawing had to be scaled."""
    edges, zoom = trace(*read_image(path), name=str(path))
    if zoom != 1:
        print(f"scaled the drawing by {zoom:.2f}, to the size of the shapes that the networks know")
    return edges


def board_command(args: argparse.Namespace) -> None:
    """Open the window to draw in."""
    from .board import Board, need_window, plt  # matplotlib, too
    from .wish import Drawn, Wish, paper_from

    need_window()
    tokenize(args.prompt)  # better told in the terminal than in the window
    drawn = Drawn(paper=paper_from(args.edge) if args.edge else None)
    base = load_base(args.base_weights)
    nets = {kind: load_control(kind, base, getattr(args, f"{kind}_weights")) for kind in CHANNELS}
    given = {f"--{kind}-weights": getattr(args, f"{kind}_weights") for kind in ["base", *CHANNELS]}
    weights = [word for pair in given.items() if pair[1] for word in pair]
    wish = Wish(drawn, prompt=args.prompt, seed=args.seed)
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # leaves the window a core
    window = Board(base, nets, wish, args.out, weights)  # named: its callbacks alone would not keep it
    plt.show()


def evaluate_command(args: argparse.Namespace) -> None:
    """Print the scores of the weights, each between its ceiling and its floor."""
    base = load_base(args.base_weights)
    wanted = list(CHANNELS) if args.only is None else args.only
    controls = {kind: load_control(kind, base, getattr(args, f"{kind}_weights")) for kind in wanted}
    show_scores(base, controls, load_classifier(), args.count)


def speed_command(args: argparse.Namespace) -> None:
    """Print the speed table of this machine."""
    from .speed import show_speed

    show_speed()


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m minicontrolnet", description="ControlNet in small.")
    commands = whole.add_subparsers(required=True, metavar="board | train | sample | evaluate | speed")
    add_board(commands.add_parser("board", help="draw with the mouse, and pictures follow"))
    add_train(commands.add_parser("train", help="train the base, or a ControlNet on the locked base"))
    add_sample(commands.add_parser("sample", help="draw pictures for a prompt and conditions"))
    add_evaluate(commands.add_parser("evaluate", help="scores on held-out pictures"))
    command = commands.add_parser("speed", help="times and memory on this machine")
    command.set_defaults(run=speed_command)
    return whole


def add_board(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prompt", default="", help='such as "red star on blue"')
    command.add_argument("--edge", type=Path, metavar="FILE", help="a line drawing to begin with")
    command.add_argument("--seed", type=in_range(int, 0, 99), default=0)
    command.add_argument("--out", type=Path, default=Path("outputs"), help="folder of what is saved")
    add_weights(command)
    command.set_defaults(run=board_command)


def add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=list(RECIPES))
    command.add_argument("--steps", type=in_range(int, 1, 10**7), help="default: the recipe that ships")
    command.add_argument("--batch", type=in_range(int, 1, 10**4), help="pictures a step; default: the recipe's")
    command.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    command.add_argument("--device", type=device, default="auto")
    command.add_argument("--out", type=file_to_write(".pt"), help="default: checkpoints/base.pt and so on")
    command.add_argument("--base-weights", type=Path, help="default: the base that ships")
    command.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    command.set_defaults(run=train_command)


def add_sample(command: argparse.ArgumentParser) -> None:
    edges = command.add_mutually_exclusive_group()
    command.add_argument("--prompt", action="append", help='such as "red star on blue"; words may be missing;'
                                                           " given again: one more row")
    edges.add_argument("--edge", type=Path, metavar="FILE", help="a line drawing: one closed outline")
    edges.add_argument("--edge-from", type=Path, metavar="FILE", help="a picture whose edges to take")
    command.add_argument("--palette", type=Path, metavar="FILE", help="a picture whose colours to take")
    command.add_argument("--pose", type=in_range(float, 0, SIZE), nargs=4, metavar=("X", "Y", "TIP_X", "TIP_Y"),
                         help="centre and upright tip in pixels from the upper left, such as 32 36 36 16")
    command.add_argument("--count", type=in_range(int, 1, 256), help="default: 8, or 1 with --grid")
    command.add_argument("--grid", choices=["scale"], help="a strip over conditioning scales from 0 to 2")
    command.add_argument("--steps", type=in_range(int, 1, TIMESTEPS), default=25)
    command.add_argument("--guidance-scale", type=in_range(float, -100, 100), default=GUIDANCE)
    command.add_argument("--conditioning-scale", type=in_range(float, -100, 100), default=1.0)
    command.add_argument("--control-start", type=in_range(float, 0, 1), default=0.0, metavar="SHARE",
                         help="control from this share of the steps on")
    command.add_argument("--control-end", type=in_range(float, 0, 1), default=1.0, metavar="SHARE")
    command.add_argument("--in-both", action="store_true", help="control in both branches of guidance")
    command.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    command.add_argument("--device", type=device, default="auto")
    command.add_argument("--out", type=file_to_write(".png"), default=Path("outputs/sample.png"))
    add_weights(command)
    command.set_defaults(run=sample_command)


def add_weights(command: argparse.ArgumentParser) -> None:
    for kind in ["base", *CHANNELS]:
        command.add_argument(f"--{kind}-weights", type=Path, metavar="FILE", help="default: those that ship")


def add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--count", type=in_range(int, 2, 10**5), default=256)
    command.add_argument("--only", nargs="*", choices=list(CHANNELS), help="which ControlNets; none given: the base alone")
    add_weights(command)
    command.set_defaults(run=evaluate_command)


def main(words: list[str] | None = None) -> None:
    args = parser().parse_args(words)
    tell_problems()
    args.run(args)


if __name__ == "__main__":
    main()
