"""The download of "save": the drawing, the pictures, and the command that generates the same pictures."""

import io
import shlex
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ...controlnet import ControlNet
from ...unet import UNet
from .asked import COUNT, FINAL, Asked
from .pictures import as_png, follow, row
from .sheet import Seen, as_image, drawing, see

READ_ME = """\
{command}

Unpack this archive in the folder of minicontrolnet and run the line above there. It writes
{folder}/again.png, whose pixels are those of {folder}/pictures.png.
"""


def save(asked: Asked, base: UNet, nets: dict[str, ControlNet], options: Sequence[str] = ()) -> tuple[str, bytes]:
    """A name and a ZIP archive of the drawing, its pictures and the command.

    ``options`` are further words of the command, such as the weights that the board was started with.
    """
    asked = replace(asked, steps=FINAL)
    seen = see(asked)
    for step in follow(asked, seen, base, nets):
        pictures = step.pictures
    name = time.strftime("board_%Y%m%d_%H%M%S")
    line = command(asked, seen, name, [*options, "--device", next(base.parameters()).device.type])
    files = {"drawing.png": as_png(drawing(asked)), "pictures.png": as_png(row(pictures)),
             "command.txt": READ_ME.format(command=line, folder=name).encode()}
    for part, tensor in maps(seen).items():
        files[f"{part}.png"] = as_png(as_image(tensor))
    return name, _zip({f"{name}/{path}": data for path, data in files.items()})


def maps(seen: Seen) -> dict[str, Tensor]:
    """The files that the command reads: the maps as the ControlNets see them, and the region."""
    found = {f"{kind}_map": seen.conditions[kind] for kind in ("edge", "palette") if kind in seen.conditions}
    if seen.region is not None:
        found["region"] = seen.region
    return found


def command(asked: Asked, seen: Seen, folder: str, options: Sequence[str] = ()) -> str:
    """The ``sample`` command that generates the same pictures."""
    words = ["python", "-m", "minicontrolnet", "sample", "--prompt", asked.prompt, "--count", COUNT,
             "--seed", asked.seed, "--steps", FINAL, "--guidance-scale", asked.guidance_scale,
             "--conditioning-scale", asked.conditioning_scale,
             "--control-start", asked.control_start, "--control-end", asked.control_end]
    if set(asked.connections) != {1.0}:
        words += ["--connection-scales", *asked.connections]
    if asked.in_both:
        words.append("--in-both")
    for part in maps(seen):
        words += [f"--{part.replace('_', '-')}", f"{folder}/{part}.png"]
    if "pose" in seen.conditions:
        words += ["--pose", *asked.pose[0], *asked.pose[1]]
    words += [*options, "--plain", "--out", f"{folder}/again.png"]
    return shlex.join(str(word) for word in words)


def _zip(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return archive.getvalue()
