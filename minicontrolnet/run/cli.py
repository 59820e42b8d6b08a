"""The command line: python -m minicontrolnet board | train | sample | evaluate | doctor | speed"""

import argparse
import sys
from pathlib import Path

from ..conditions import CHANNELS
from ..diffusion import TIMESTEPS
from ..sampling import GUIDANCE
from ..shapes import SIZE
from .board import PROMPT, board_command
from .doctor import doctor_command
from .options import (Once, any_path, device, file_to_write, hint_at_idle_weights, in_range, read_words,
                      report_problems)
from .sample import sample_command
from .train import RECIPES, train_command
from .weights import load_base, load_classifier, load_control


def evaluate_command(args: argparse.Namespace) -> None:
    """Print the scores of the weights, each with its ceiling and its floor."""
    from ..measure.scores import show_scores

    kinds = list(CHANNELS) if args.only is None else args.only
    hint_at_idle_weights(args, kinds, "evaluate scores the ControlNets that --only names")
    base = load_base(args.base_weights)
    controls = {kind: load_control(kind, base, getattr(args, f"{kind}_weights")) for kind in kinds}
    show_scores(base, controls, load_classifier(), args.count)


def speed_command(args: argparse.Namespace) -> None:
    """Print the speed table of this machine."""
    from ..measure.cost import show_speed

    show_speed()


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m minicontrolnet", description="ControlNet, small enough to read.")
    commands = whole.add_subparsers(required=True, metavar="board | train | sample | evaluate | doctor | speed")
    add_board(commands.add_parser("board", help="draw in a browser, and pictures follow while you draw"))
    add_train(commands.add_parser("train", help="train the base, or a ControlNet on the locked base"))
    add_sample(commands.add_parser("sample", help="generate pictures for a prompt and conditions"))
    add_evaluate(commands.add_parser("evaluate", help="print scores on held-out pictures"))
    add_doctor(commands.add_parser("doctor", help="find out why a ControlNet does not do what it should"))
    command = commands.add_parser("speed", help="measure times and memory on this machine")
    command.set_defaults(run=speed_command)
    return whole


def add_board(command: argparse.ArgumentParser) -> None:
    command.add_argument("--prompt", default=PROMPT, help="what stands in the page at first; default: %(default)s")
    command.add_argument("--edge", type=any_path, metavar="FILE", help="a line drawing to begin with")
    command.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    command.add_argument("--port", type=in_range(int, 0, 65535), default=8765,
                         help="default: 8765, or the next free one; 0 is any free port")
    command.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    add_weights(command)
    command.set_defaults(run=board_command)


def add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=list(RECIPES))
    command.add_argument("--steps", type=in_range(int, 1, 10**7), help="default: those of the shipped weights")
    command.add_argument("--batch", type=in_range(int, 1, 10**4), help="pictures in each step; default: 16")
    command.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    command.add_argument("--device", type=device, default="auto")
    command.add_argument("--out", type=file_to_write(".pt"), help="default: checkpoints/base.pt and so on")
    command.add_argument("--base-weights", type=any_path, metavar="FILE", help="default: the shipped base")
    command.add_argument("--start-from", type=any_path, metavar="NAME|FILE",
                         help="a trained ControlNet to start from: edge, palette, pose (shipped), or a file")
    command.add_argument("--resume", action="store_true", help="continue an interrupted run")
    command.set_defaults(run=train_command)


def add_sample(command: argparse.ArgumentParser) -> None:
    edges, colours = command.add_mutually_exclusive_group(), command.add_mutually_exclusive_group()
    command.add_argument("--prompt", action="append", help='such as "red star on blue"; any word may be missing;'
                                                           " each further --prompt adds a row")
    edges.add_argument("--edge", action=Once, type=any_path, metavar="FILE", help="a line drawing: one closed outline")
    edges.add_argument("--edge-from", action=Once, type=any_path, metavar="FILE",
                       help="a picture whose edges are detected")
    edges.add_argument("--edge-map", action=Once, type=any_path, metavar="FILE",
                       help="a 64x64 edge map, taken as it is (the board saves one)")
    colours.add_argument("--palette", action=Once, type=any_path, metavar="FILE",
                         help="a picture whose colours are taken")
    colours.add_argument("--palette-map", action=Once, type=any_path, metavar="FILE",
                         help="a 64x64 palette, taken as it is")
    command.add_argument("--pose", action=Once, type=in_range(float, 0, SIZE), nargs=4,
                         metavar=("X", "Y", "TIP_X", "TIP_Y"),
                         help="the centre and the tip in pixels from the upper left, such as 32 36 36 16")
    command.add_argument("--count", type=in_range(int, 1, 256),
                         help="pictures for each prompt; default: 8, or 1 with --grid")
    command.add_argument("--grid", choices=["scale"], help="a row of pictures with conditioning scales from 0 to 2")
    command.add_argument("--steps", type=in_range(int, 1, TIMESTEPS), default=25)
    command.add_argument("--guidance-scale", type=in_range(float, -100, 100), default=GUIDANCE)
    command.add_argument("--conditioning-scale", type=in_range(float, -100, 100), default=1.0)
    command.add_argument("--connection-scales", type=in_range(float, -100, 100), nargs=13, metavar="SCALE",
                         help="13 further factors, one for each control from shallow to deep")
    command.add_argument("--region", action=Once, type=any_path, metavar="FILE",
                         help="a 64x64 mask: control acts where it is white")
    command.add_argument("--control-start", type=in_range(float, 0, 1), default=0.0, metavar="SHARE",
                         help="the share of the steps after which control begins")
    command.add_argument("--control-end", type=in_range(float, 0, 1), default=1.0, metavar="SHARE")
    command.add_argument("--in-both", action="store_true", help="control in both branches of guidance")
    command.add_argument("--seed", type=in_range(int, 0, 2**31), default=0)
    command.add_argument("--device", type=device, default="auto")
    command.add_argument("--plain", action="store_true",
                         help="save the pixels of the pictures, without conditions and captions")
    command.add_argument("--out", type=file_to_write(".png"), default=Path("outputs/sample.png"))
    add_weights(command)
    command.set_defaults(run=sample_command)


def add_weights(command: argparse.ArgumentParser) -> None:
    for kind in ["base", *CHANNELS]:
        command.add_argument(f"--{kind}-weights", type=any_path, metavar="FILE", help="default: the shipped ones")


def add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--count", type=in_range(int, 2, 10**5), default=256, help="how many held-out pictures")
    command.add_argument("--only", nargs="*", action="extend", choices=list(CHANNELS),
                         help="which ControlNets; with no name, the base alone")
    add_weights(command)
    command.set_defaults(run=evaluate_command)


def add_doctor(command: argparse.ArgumentParser) -> None:
    command.description = ("Examine ControlNets that were trained here, and print what is healthy and what is broken."
                           " Give the base that yours was trained on, too, if it is not the one that ships.")
    command.epilog = ("The exit status is 1 if a ControlNet is broken. For a ControlNet from elsewhere call diagnose in"
                      " minicontrolnet/measure/diagnosis.py; lessons/README.md has an example.")
    command.add_argument("--only", nargs="+", action="extend", choices=list(CHANNELS),
                         help="which ControlNets; default: those whose files are given, or all the shipped ones")
    add_weights(command)
    command.set_defaults(run=doctor_command)


def main(words: list[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    args = read_words(parser(), words)
    args.words = words
    report_problems()
    args.run(args)
    sys.stdout.flush()  # a full disk or a closed pipe is noticed here, and not after the end
