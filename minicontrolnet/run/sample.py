"""The sample command: pictures for prompts and conditions, in one PNG."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..conditions import stick_figure
from ..errors import Problem
from ..sampling import BLACK, GUIDANCE, Control, control_window, sample, seeded_noise
from ..shapes import SIZE, TILT, tokenize
from .files import check_place, write_file
from .options import hint_at_idle_weights
from .weights import load_base, load_control

STEEPEST_POSE = 30  # degrees: the shapes of the training lean by less, even where they are stretched
SHORTEST_POSE = 4  # pixels: a shorter stick vanishes in the dot at its centre
SCALES = [0, 0.25, 0.5, 0.75, 1, 1.5, 2]  # of --grid scale


def sample_command(args: argparse.Namespace) -> None:
    """Generate pictures and save them beside their conditions.

    Rows are prompts and columns are noises. With --grid scale a row is one prompt and one noise.
    """
    prompts = args.prompt or [""]
    tokens = tokenize(prompts)  # a mistake in a prompt is reported before any file is read
    check_output(args)
    conditions = conditions_asked_for(args)
    hint_at_idle_weights(args, conditions, "its condition is missing; add --edge FILE, --palette FILE or --pose")
    hint_at_idle_options(args, conditions)
    hint_at_idle_guidance(args, conditions, has_words=bool(tokens.any()))
    region = map_from_file(args.region, 1) if args.region else None
    if region is not None and BLACK <= region.max() < 0.9:
        print(f"hint: the region is grey, at most {region.max():.2f} of white, and there control acts at this share of"
              " its strength; make it white where control should act fully")
    base = load_base(args.base_weights, args.device)
    nets = {kind: load_control(kind, base, getattr(args, f"{kind}_weights")) for kind in conditions}
    count = args.count or (1 if args.grid else 8)
    noise = seeded_noise(count, args.seed).repeat(len(prompts), 1, 1, 1)
    tokens = tokens.repeat_interleave(count, 0)
    window = {}
    if conditions:  # without one these have no effect, as the hints have said
        window = {"in_both": args.in_both, "control_start": args.control_start, "control_end": args.control_end}
    strip = []
    for scale in SCALES if args.grid else [args.conditioning_scale]:
        strength = strength_of_controls(args, scale)
        controls = [Control(nets[kind], condition, strength, region) for kind, condition in conditions.items()]
        strip.append(sample(base, tokens, noise, controls, args.guidance_scale, args.steps, progress="sampling",
                            **window))
    pictures = torch.stack(strip, 1).flatten(0, 1).cpu()
    write_file(args.out, output(args, conditions, pictures, labels(args, prompts, count)))
    print(f"wrote {args.out}")


def output(args: argparse.Namespace, conditions: dict[str, Tensor], pictures: Tensor, captions: dict) -> bytes:
    """The file that the command writes: a figure, or with --plain the pixels of the pictures alone."""
    if args.plain:
        from ..draw.board.pictures import as_png, row

        return as_png(row(pictures, captions["columns"] or len(pictures)))
    from ..draw import figures  # matplotlib takes longer to import than all else

    return figures.as_png(figures.samples(conditions, pictures, **captions), crop=True)


def strength_of_controls(args: argparse.Namespace, scale: float) -> float | list[float]:
    """The strength of the 13 controls: one number, or 13 with --connection-scales."""
    if args.connection_scales is None:
        return scale
    return [scale * factor for factor in args.connection_scales]


def labels(args: argparse.Namespace, prompts: list[str], count: int) -> dict:
    """The title and the captions of the figure."""
    many = len(prompts) > 1
    rows = []
    for prompt in prompts:
        rows += [prompt] + [""] * (count - 1 if args.grid else 0)
    return {"columns": len(SCALES) if args.grid else count if many else None,
            "title": "" if many else f'prompt: "{prompts[0]}"',
            "below": [f"scale {scale}" for scale in SCALES] if args.grid else (),
            "left": rows if many else ()}


def check_output(args: argparse.Namespace) -> None:
    """Raise Problem if the picture cannot be written, or would overwrite a picture that is read."""
    for path in (args.edge, args.edge_from, args.edge_map, args.palette, args.palette_map, args.region):
        if path and os.path.exists(args.out) and os.path.exists(path) and os.path.samefile(path, args.out):
            raise Problem(f"--out {args.out} would overwrite the picture that is read; give another name")
    check_place(args.out)
    if not args.plain:
        from ..draw import figures  # noqa: F401  (if matplotlib cannot start, that is told before any work)


def conditions_asked_for(args: argparse.Namespace) -> dict[str, Tensor]:
    """The conditions, each (1, c, 64, 64), that the options of a command name."""
    from ..draw.drawings import (edges_from_picture, hint_about, hint_about_papers, is_line_drawing,
                                 palette_from_picture, read_image, trace)

    conditions = {}
    hint = ""
    if args.edge:
        colours, opacity = read_image(args.edge)
        conditions["edge"], zoom = trace(colours, opacity, name=str(args.edge))
        if zoom != 1:
            print(f"hint: scaled the drawing by {zoom:.2f}, to the size of the shapes that the networks know")
        hint = hint_about(conditions["edge"]) or hint_about_papers(colours, opacity)
    elif args.edge_from:
        conditions["edge"] = edges_from_picture(args.edge_from)
        hint = hint_about(conditions["edge"])
        if is_line_drawing(args.edge_from, conditions["edge"]):
            hint = ("the picture looks like a line drawing, and the detector finds both sides of each line; give it to"
                    " --edge and not to --edge-from")
    elif args.edge_map:
        conditions["edge"] = map_from_file(args.edge_map, 1)
    if hint:
        print(f"hint: {hint}")
    if args.palette:
        conditions["palette"] = palette_from_picture(args.palette)
    elif args.palette_map:
        conditions["palette"] = map_from_file(args.palette_map, 3)
    if args.pose:
        conditions["pose"] = stick_figure(*torch.tensor(args.pose).view(2, 1, 2) * 2 / SIZE - 1)
    if args.grid and not conditions:
        raise Problem("--grid scale compares strengths of control, and there is no condition;"
                      " give --edge FILE, --palette FILE or --pose")
    if args.control_start >= args.control_end:
        raise Problem("--control-start must be less than --control-end, otherwise there is no control")
    if conditions:
        control_window(args.steps, args.control_start, args.control_end)
    return conditions


def hint_at_idle_options(args: argparse.Namespace, conditions: dict[str, Tensor]) -> None:
    """Print a hint about options that have no effect, because their condition is missing."""
    idle = []
    if not conditions:
        given = {"--conditioning-scale": args.conditioning_scale != 1, "--connection-scales": args.connection_scales,
                 "--region": args.region, "--control-start": args.control_start != 0,
                 "--control-end": args.control_end != 1, "--in-both": args.in_both}
        idle = [name for name, is_given in given.items() if is_given]
    if idle:
        print(f"hint: {', '.join(idle)} has no effect without its condition;"
              " add --edge FILE, --palette FILE or --pose")
    if args.grid and args.conditioning_scale != 1:
        print("hint: --grid scale chooses the scales itself, so --conditioning-scale has no effect")
    if conditions and (args.conditioning_scale == 0 or (args.connection_scales and not any(args.connection_scales))):
        print("hint: at a strength of 0 the conditions have no effect")
    if args.pose and math.dist(args.pose[:2], args.pose[2:]) < SHORTEST_POSE:
        print("hint: the pose is so short that it shows no direction; give the centre and the tip in pixels, such as"
              " 32 36 36 16")
    elif args.pose and tilt_of(args.pose) > STEEPEST_POSE:
        print(f"hint: the pose is tilted by {tilt_of(args.pose):.0f} degrees, but no shape in training by more than"
              f" {math.degrees(TILT):.0f}; so the pictures hardly follow it")
    if args.edge_map and not conditions["edge"].any():
        print(f'hint: the edge map "{args.edge_map}" is black everywhere, so it shows no outline')


def tilt_of(pose: Sequence[float]) -> float:
    """How far a pose leans to either side, in degrees: 0 is upright, and 180 upside down."""
    x, y, tip_x, tip_y = pose
    return abs(math.degrees(math.atan2(tip_x - x, y - tip_y)))


def hint_at_idle_guidance(args: argparse.Namespace, conditions: dict[str, Tensor], has_words: bool) -> None:
    """Print a hint where prompt, guidance and control in both branches of guidance cannot have their effect."""
    if args.guidance_scale == 0 and has_words:
        print("hint: at guidance scale 0 only the branch without words counts, so the prompt has no effect;"
              " choose another scale")
    if args.guidance_scale == 1 and conditions and args.in_both:
        print("hint: at guidance scale 1 only the branch with words counts, and it has control in any case, so"
              " --in-both has no effect")
    branches_differ = has_words or (conditions and not args.in_both)
    if args.guidance_scale != GUIDANCE and not branches_differ:
        print("hint: both branches of guidance are the same, so --guidance-scale has no effect; give a --prompt")


def map_from_file(path: Path, channels: int) -> Tensor:
    """A condition or a region (1, channels, 64, 64) from a picture file of that size, taken as it is."""
    from ..draw.drawings import read_image

    colours, opacity = read_image(path)
    if tuple(colours.shape[2:]) != (SIZE, SIZE):
        height, width = colours.shape[2:]
        raise Problem(f'"{path}" has {width} x {height} pixels, but a map is taken as it is and needs {SIZE} x {SIZE};'
                      " use --edge, --edge-from or --palette for other pictures")
    if channels == 1:  # an edge map or a region: what is transparent is not white
        colours = colours * opacity
        if (colours.amax(1) - colours.amin(1)).max() > 0.1:
            raise Problem(f'"{path}" is coloured, but an edge map or a region is black and white; save it with 0 and'
                          " 255 in all channels, and mind that a picture file may have a table of colours")
    return colours[:, :channels]
