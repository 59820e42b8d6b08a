"""The README's picture of the board: python lessons/pictures.py writes lessons/pictures/board.png."""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the package stands beside the lessons

from minicontrolnet import load_base, load_control
from minicontrolnet.draw import figures
from minicontrolnet.draw.board import Asked, Stroke, follow, see
from minicontrolnet.draw.board.sheet import drawing
from minicontrolnet.run.files import write_file
from minicontrolnet.run.options import read_words, report_problems

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

# A house as somebody drew it: points of the sheet, in 256ths.
WALLS = ((52, 122), (53, 160), (51, 222), (120, 224), (205, 221), (207, 160), (205, 124))
ROOF = ((38, 125), (84, 79), (129, 36), (172, 78), (219, 126))
BEAM = ((38, 125), (100, 123), (160, 124), (219, 126))
DOOR = ((112, 223), (113, 172), (146, 171), (147, 223))
WINDOW = ((70, 145), (98, 144), (99, 172), (70, 173), (70, 145))
STAGES = {  # what has been drawn so far
    "nothing yet": (),
    "half of\nthe walls": (WALLS[:4],),
    "the walls": (WALLS,),
    "a piece\nof roof": (WALLS, ROOF[:3]),
    "a house": (WALLS, ROOF, BEAM),
    "door and\nwindow": (WALLS, ROOF, BEAM, DOOR, WINDOW),
}
ROWS = ("the drawing", "what the\nControlNet\nsees", "two of\nfour\npictures", "")


def strip() -> Figure:
    """A column for each stage: the drawing, the edge map, and two of the pictures."""
    base = load_base()
    nets = {"edge": load_control("edge", base)}
    columns = [column(strokes, base, nets) for strokes in STAGES.values()]
    rows = torch.stack(columns, dim=1).flatten(0, 1)  # row by row
    return figures.grid(rows, len(columns), 'The pictures follow while a house is drawn (prompt: "orange on blue")',
                        list(STAGES), ROWS)


def column(strokes: tuple, base, nets: dict) -> Tensor:
    """One stage from top to bottom: (4, 3, 128, 128)."""
    scaled = [Stroke(tuple((x / 256, y / 256) for x, y in points)) for points in strokes]
    asked = Asked(tuple(scaled), prompt="orange on blue")
    seen = see(asked)
    *_, last = follow(asked, seen, base, nets)
    sheet = pil_to_tensor(drawing(asked).resize((128, 128), Image.Resampling.BOX))[None] / 255
    edges = seen.conditions.get("edge", torch.zeros(1, 1, 64, 64))
    return torch.cat([sheet.expand(-1, 3, -1, -1), figures.enlarge(edges, 2), figures.enlarge(last.pictures[:2], 2)])


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python lessons/pictures.py",
                                     description="Make the README's picture of the board again, in lessons/pictures/.")
    read_words(parser, words)  # there are no options, so --help works, and other words are refused
    path = HERE / "pictures" / "board.png"
    write_file(path, figures.as_png(strip(), crop=True))
    print(f"wrote {path}")


if __name__ == "__main__":
    report_problems()
    main()
