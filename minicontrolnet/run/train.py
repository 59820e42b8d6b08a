"""The train command: a training loop with a progress bar, checkpoints, Ctrl-C and several processes."""

import argparse
import platform
import shlex
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ..conditions import CHANNELS
from ..controlnet import ControlNet
from ..errors import Problem
from ..measure.classifier import ShapeClassifier, classifier_loss
from ..measure.fingerprint import fingerprint
from ..shapes import random_batch
from ..training import BATCH_SIZE, Loss, Training, base_loss, control_loss, seeded
from ..unet import UNet
from .checkpoint import Checkpoint, finish_step_on_ctrl_c, in_use
from .distributed import any_rank, on_every_rank, own_part, process_group, processes, rank, rank_zero, shared
from .files import check_place, write_file
from .weights import load_base, save_weights, start_from

# Steps, batch size and learning rate of the shipped weights; "shapes" is the classifier of the scores. At 2e-3
# the base learns no faster and its maps grow. One run of 12,000 steps at that rate ended in a base that ignores xt.
RECIPES = {"base": (10000, BATCH_SIZE, 1e-3), "edge": (4000, BATCH_SIZE, 1e-3),
           "palette": (4000, BATCH_SIZE, 1e-3), "pose": (4000, BATCH_SIZE, 1e-3), "shapes": (400, 64, 3e-3)}
SAVE_EVERY = 500  # steps


def train_command(args: argparse.Namespace) -> None:
    """Train the base, a ControlNet or the classifier, and write its weights and how they were made."""
    steps, batch, args.lr = RECIPES[args.what]
    args.steps = args.steps or steps
    args.batch = args.batch or batch
    args.out = args.out or Path("checkpoints") / f"{args.what}.pt"
    args.state = args.out.with_suffix(".train.pt")
    with process_group(args.device), ExitStack() as until_the_end:
        rank_zero(begin, args, until_the_end)
        network, loss, base = what_to_train(args)
        training = Training(network, shared(loss, network), args.steps, lr=args.lr, seed=args.seed)
        command = shlex.join(["python", "-m", "minicontrolnet", *args.words])
        checkpoint = Checkpoint(training, args.state, what_identifies(args, base), command)
        if args.resume:
            rank_zero(checkpoint.load)
            share_state(training)
        run(training, checkpoint, args)
        rank_zero(write_weights, training.averaged, base, checkpoint, args)


def run(training: Training, checkpoint: Checkpoint, args: argparse.Namespace) -> None:
    """Iterate over a training. Save regularly and at the end; after Ctrl-C finish the step, save and stop."""
    bar = tqdm(training, f"training {args.what}", args.steps, initial=training.step, disable=rank() > 0,
               mininterval=1 if sys.stderr.isatty() else 15)  # a log file needs few lines
    with finish_step_on_ctrl_c() as asked_to_stop:
        try:
            for step, _ in bar:
                stop = any_rank(bool(asked_to_stop))
                if stop or step == args.steps or step % SAVE_EVERY == 0:
                    rank_zero(checkpoint.save)
                if stop:
                    break
        except Problem as problem:
            kept = f"; the last good state is in {args.state}" if args.state.exists() else ""
            raise on_every_rank(Problem(f"{problem}{kept}")) from None
    if training.step < args.steps:
        raise on_every_rank(KeyboardInterrupt(
            f"stopped after step {training.step} of {args.steps}, and saved the state in {args.state};"
            " the same command with --resume goes on from there"))


def share_state(training: Training) -> None:
    """Give every process the state that process 0 has loaded."""
    if processes() > 1:
        training.load_state_dict(rank_zero(training.state_dict))


def begin(args: argparse.Namespace, until_the_end: ExitStack) -> None:
    """Check and hold the files of a training, before any work. Raises Problem if one of them cannot be written."""
    beside = args.out.with_suffix(".txt")
    for path in args.out, args.state, beside:
        check_place(path)
    until_the_end.enter_context(in_use(args.state))
    check_options(args)
    if args.resume:
        return
    if args.state.exists():
        raise Problem(f"{args.state} holds an earlier run; give --resume to continue it,"
                      " or --out FILE to keep it and start another one")
    for path in args.out, beside:
        if path.exists():
            raise Problem(f"{path} exists already and would be overwritten; give another --out, or remove it first")


def check_options(args: argparse.Namespace) -> None:
    """Raise Problem for options that do not fit what is trained."""
    if args.start_from and args.what not in CHANNELS:
        raise Problem(f"--start-from is for ControlNets, and this trains {args.what}; leave it out")
    if args.base_weights and args.what not in CHANNELS:
        raise Problem(f"--base-weights is for ControlNets, and this trains {args.what} from new weights; leave it out")
    if args.what == "shapes" and args.batch != RECIPES["shapes"][1]:
        raise Problem(f"the classifier always learns from {RECIPES['shapes'][1]} pictures a step,"
                      f" not from {args.batch}; leave out --batch")


def what_to_train(args: argparse.Namespace) -> tuple[nn.Module, Loss, UNet | None]:
    """The new network, its loss, and the base of a ControlNet."""
    part = own_part(args.batch)
    pictures = partial(random_batch, args.batch)
    if args.what == "base":
        network = rank_zero(seeded, args.seed, UNet).to(args.device)
        return network, partial(base_loss, next_batch=pictures, part=part), None
    if args.what == "shapes":
        return rank_zero(seeded, args.seed, ShapeClassifier), partial(classifier_loss, part=part), None
    base = rank_zero(load_base, args.base_weights).to(args.device)
    network = rank_zero(new_control, args, base).to(args.device)
    return network, control_loss(base, args.what, next_batch=pictures, part=part), base


def new_control(args: argparse.Namespace, base: UNet) -> ControlNet:
    """A ControlNet with new weights, or with those of --start-from."""
    control = seeded(args.seed, ControlNet, base, CHANNELS[args.what])
    if args.start_from:
        args.started_from = start_from(control, args.start_from, base)
        print(f"starting from the weights of the {args.started_from}")
    return control


def what_identifies(args: argparse.Namespace, base: UNet | None) -> dict[str, str | int | float]:
    """Everything that must be the same to resume a run."""
    run = {"steps": args.steps, "seed": args.seed, "learning rate": args.lr, "batch": args.batch,
           "network": args.what}
    if args.start_from:
        run["start"] = str(args.start_from)
    if base is not None:
        run["base"] = fingerprint(base.state_dict())
    return run


def write_weights(network: nn.Module, base: UNet | None, checkpoint: Checkpoint,
                  args: argparse.Namespace) -> None:
    """Write a trained network, and a text file that lists how it was made."""
    mark = save_weights(network, args.what, args.out, base)
    in_each = f" in each of {processes()} processes" if processes() > 1 else ""
    lines = {
        "command": checkpoint.command,
        "steps, batch, learning rate, seed": f"{args.steps}, {args.batch}, {args.lr}, {args.seed}",
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads{in_each}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}",
        "minutes": f"{checkpoint.seconds / 60:.1f}",
        "fingerprint": mark,
    }
    if base is not None:
        lines["base"] = fingerprint(base.state_dict())
    if args.start_from:
        lines["started from"] = args.started_from
    text = "".join(f"{name}: {value}\n" for name, value in lines.items())
    write_file(args.out.with_suffix(".txt"), text.encode(errors="backslashreplace"))
    print(f"wrote {args.out} and, beside it, {args.out.with_suffix('.txt').name}, which lists how it was made")
