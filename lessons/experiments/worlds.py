"""Parts of the toy world: few pictures of few colours, and shapes that have colours of their own."""

import torch

from minicontrolnet import COLOURS, SHAPES, Batch, random_scenes, render, tokenize
from minicontrolnet.shapes import Scenes

PAIRS = tokenize(["orange circle on purple", "white square on green", "cyan triangle on red", "yellow star on blue"])
OLD, NEW = ("white", "orange", "green", "blue"), ("cyan", "yellow", "red", "purple")
SEEN = ("circle", "square"), OLD
NEW_COLOURS = ("circle", "square"), NEW
NEW_COLOURS_AND_SHAPES = ("triangle", "star"), NEW


def batch_of(scenes: Scenes) -> Batch:
    image, mask = render(scenes)
    return Batch(image, image * 2 - 1, mask, scenes.prompt, scenes)


def in_pairs(scenes: Scenes) -> Batch:
    """The same scenes, with the two colours that belong to the shape."""
    colour, _, background = (PAIRS[scenes.shape] - 1).unbind(1)
    return batch_of(scenes._replace(colour=colour, background=background))


def part_of_the_world(n: int, generator: torch.Generator, shapes: tuple[str, ...], colours: tuple[str, ...]) -> Batch:
    """n random pictures that have these shapes and colours only."""
    scenes = random_scenes(64 * n, generator)
    shape = torch.tensor([list(SHAPES).index(name) for name in shapes])
    colour = torch.tensor([list(COLOURS).index(name) for name in colours])
    fits = (torch.isin(scenes.shape, shape) & torch.isin(scenes.colour, colour)
            & torch.isin(scenes.background, colour))
    return batch_of(Scenes(*(field[fits][:n] for field in scenes)))


def batches_from(pictures: Batch, size: int = 16):
    """A next_batch that takes its pictures from a fixed set."""

    def next_batch(generator: torch.Generator) -> Batch:
        pick = torch.randint(len(pictures.image), (size,), generator=generator)
        return pictures.map(lambda tensor: tensor[pick])

    return next_batch
