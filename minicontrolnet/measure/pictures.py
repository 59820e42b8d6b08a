"""How well pictures follow their prompts and conditions. Images are (n, 3, h, w) in [0, 1].

Compare each score with its ceiling (real pictures) and its floor (shuffled conditions or prompts).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..conditions import check_edge_maps, detect_edges
from ..errors import Problem, check_images, check_number, check_tensor
from ..shapes import COLOURS, DARK, EMPTY, SHAPES, Scenes, check_scenes, check_tokens

BRIGHT = torch.tensor(list(COLOURS.values()))
PAINTS = torch.cat([BRIGHT, DARK * BRIGHT])  # (16, 3): every colour of a real picture, shapes first


# %% The picture compared with its condition


def mask_of(images: Tensor) -> Tensor:
    """Find the mask of the shape in pictures of two colours: the share (n, 1, h, w) of each pixel that it covers.

    The background's colour is the median of the border. The shape's colour is the mean of the
    pixels that differ most from it. A pixel above one half is nearer to the shape's colour. A
    picture without a second colour has an empty mask.
    """
    check_images("the images", images, channels=[3])
    background = border(images).median(-1).values[..., None, None]
    far = (images - background).norm(dim=1, keepdim=True)
    weight = (far > 0.6 * far.amax(dim=(2, 3), keepdim=True)).to(images.dtype)
    colour = (images * weight).sum((2, 3), True) / weight.sum((2, 3), True).clamp(min=1)
    axis = colour - background
    length = axis.square().sum(1, True)
    share = ((images - background) * axis).sum(1, True) / length.clamp(min=1e-6)
    return share.clamp(0, 1) * (length > 0.01)


def border(images: Tensor) -> Tensor:
    """The outermost pixels of (..., h, w) as (..., 2 h + 2 w)."""
    return torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)


def mask_iou(mask: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union (n,) of masks (n, 1, h, w). Both are rounded at one half.

    Two masks that are both empty have no shape in common, so their IoU is 0.
    """
    check_tensor("the masks", mask)
    check_tensor("the true masks", truth)
    if mask.shape != truth.shape or mask.dim() != 4 or mask.shape[1] != 1:
        raise Problem(f"the masks have the shapes {tuple(mask.shape)} and {tuple(truth.shape)}; give two of the same"
                      " shape (n, 1, h, w)")
    for given in (mask, truth):
        check_images("the masks", given if given.is_floating_point() else given.float())
    a, b = mask > 0.5, truth > 0.5
    return (a & b).sum((1, 2, 3)) / (a | b).sum((1, 2, 3)).clamp(min=1)


def edge_f1(images: Tensor, edges: Tensor) -> Tensor:
    """F1 (n,) of the edges detected in images (n, 3, h, w) against edge maps (n, 1, h, w) of 0 and 1.

    An edge pixel counts if the other map has one at most one pixel away.
    """
    check_edge_maps(edges)
    _check_pairs(images, edges)
    found = detect_edges(images)
    precision = _share_near(found, edges)
    recall = _share_near(edges, found)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-6)


def _share_near(a: Tensor, b: Tensor) -> Tensor:
    """The share (n,) of edge pixels of a that have one of b at most one pixel away."""
    near = F.max_pool2d(b, 3, stride=1, padding=1)
    return (a * near).sum((1, 2, 3)) / a.sum((1, 2, 3)).clamp(min=1)


def _check_pairs(images: Tensor, conditions: Tensor) -> None:
    if len(images) != len(conditions) or images.shape[2:] != conditions.shape[2:]:
        raise Problem(f"the images have the shape {tuple(images.shape)} and the conditions {tuple(conditions.shape)};"
                      " give one condition of the same size for each image")


def palette_error(images: Tensor, palettes: Tensor) -> Tensor:
    """Mean absolute difference (n,) between the palettes of the images and those of the condition."""
    check_images("the images", images, channels=[3])
    check_images("the palettes", palettes, channels=[3])
    _check_pairs(images, palettes)
    difference = F.adaptive_avg_pool2d(images, 4) - F.adaptive_avg_pool2d(palettes, 4)
    return difference.abs().mean((1, 2, 3))


def pose_errors(images: Tensor, scenes: Scenes) -> tuple[Tensor, Tensor]:
    """How far the poses of images differ from those of their scenes: degrees (n,) and pixels (n,).

    The place is the mean of the mask. We find the tilt by moments of the mask. Without stretch, a
    shape with p tips has equal second moments along x and y, so these give the stretch, and we
    remove it. Then the p-th moment around the centre, sum of r^2 exp(i p angle), points along the
    tips, up to turns of 360 / p degrees. Finally we put the stretch back: the error is the angle
    between the two arrows (see tip_of) that you see in the pictures. Tilting the stretched shapes of
    our scenes by 30 degrees turns these arrows by 24 to 37 degrees. A circle has no tilt; its angle
    error is nan. A picture without a shape has no pose, so both of its errors are nan.
    """
    if not isinstance(scenes, Scenes):
        raise Problem(f"the scenes are a {type(scenes).__name__}; give the scenes of a batch, such as batch.scenes")
    check_images("the images", images, channels=[3])
    if images.shape[2] != images.shape[3]:
        raise Problem(f"the images have the shape {tuple(images.shape)}; give square ones, as the scenes are")
    if len(images) != len(scenes.shape):
        raise Problem(f"there are {len(images)} images and {len(scenes.shape)} scenes; give one scene for each image")
    check_scenes(scenes)
    mask = mask_of(images) > 0.5
    mean, x, y = mean_over(mask.to(images))
    place = torch.stack([mean(x), mean(y)], dim=1)
    x = x - place[:, 0].view(-1, 1, 1, 1)
    y = y - place[:, 1].view(-1, 1, 1, 1)
    width = mean(x**2).clamp(min=1e-6).sqrt()
    height = mean(y**2).clamp(min=1e-6).sqrt()
    x = x / width.view(-1, 1, 1, 1)
    y = y / height.view(-1, 1, 1, 1)
    tips, _, _, upright = torch.tensor(list(SHAPES.values())).to(images)[scenes.shape].T
    r_squared = torch.hypot(x, y) ** 2
    turned = torch.atan2(y, x) * tips.view(-1, 1, 1, 1)
    moment = torch.atan2(mean(r_squared * turned.sin()), mean(r_squared * turned.cos()))
    off = moment - tips * (upright + scenes.angle)
    angle = scenes.angle + torch.atan2(off.sin(), off.cos()) / tips
    degrees = _direction(angle, width / height) - _direction(scenes.angle, scenes.aspect)
    pixels = (place - scenes.centre).norm(dim=1) * images.shape[-1] / 2
    is_circle = scenes.shape == list(SHAPES).index("circle")
    is_blank = ~mask.any(3).any(2).any(1)
    return degrees.abs().masked_fill(is_circle | is_blank, torch.nan), pixels.masked_fill(is_blank, torch.nan)


def _direction(angle: Tensor, aspect: Tensor) -> Tensor:
    """Where the arrow from the centre to the tip points, in degrees. The stretch turns it a little."""
    return torch.atan2(angle.sin() * aspect, angle.cos()).rad2deg()


def mean_over(mask: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A function that averages values over masks (n, 1, h, h), and the x and y of the pixels in [-1, 1]."""
    weight = mask / mask.sum((2, 3), True).clamp(min=1e-6)
    line = (torch.arange(mask.shape[-1]).to(mask) + 0.5) * 2 / mask.shape[-1] - 1

    def mean(values: Tensor) -> Tensor:
        return (weight * values).sum((1, 2, 3))

    return mean, line.view(1, 1, 1, -1), line.view(1, 1, -1, 1)


# %% The picture compared with its prompt


def nearest_colour(images: Tensor) -> Tensor:
    """The index (n, h, w) into PAINTS of the colour nearest to each pixel."""
    return (images[:, None] - PAINTS.to(images)[..., None, None]).square().sum(2).argmin(1)


def check_prompts(images: Tensor, prompt: Tensor) -> None:
    """Raise Problem unless there are images in [0, 1] and the tokens of one prompt for each."""
    check_images("the images", images, channels=[3])
    check_tokens(prompt)
    if len(images) != len(prompt):
        raise Problem(f"there are {len(images)} images and {len(prompt)} prompts; give one prompt for each image")


def check_words(prompt: Tensor, which: Sequence[int], name: str) -> None:
    """Raise Problem if one of these words is missing in a prompt (n, 3), because then no picture is right or wrong."""
    if (prompt[:, which] == EMPTY).any():
        raise Problem(f"a prompt names no {name}, so no picture is right or wrong; give prompts that name it, such as"
                      ' "red star on blue"')


def colours_right(images: Tensor, prompt: Tensor) -> Tensor:
    """Whether (n,) the two most frequent colours are the prompt's, with the background's at the border.

    Raises Problem if a prompt lacks one of its two colours.
    """
    check_prompts(images, prompt)
    check_words(prompt, [0, 2], "colour")
    nearest = nearest_colour(images)
    two = F.one_hot(nearest, len(PAINTS)).sum((1, 2)).topk(2).indices.sort(1).values
    offset = torch.tensor([0, len(COLOURS)], device=prompt.device)  # PAINTS has the backgrounds second
    wanted = prompt[:, [0, 2]] - 1 + offset
    background = border(nearest).mode(1).values
    return (two == wanted).all(1) & (background == wanted[:, 1])


def off_palette(images: Tensor, reach: float = 0.2) -> Tensor:
    """The share (n,) of pixels farther than ``reach`` from every colour of the toy world.

    Oversaturated pixels count, and so do the mixed pixels along outlines. So real pictures are not at 0.
    """
    check_images("the images", images, channels=[3])
    check_number("reach", reach, 0, 2)  # the distance from black to white is 1.73
    off = (images[:, None] - PAINTS.to(images)[..., None, None]).norm(dim=2).amin(1)
    return (off > reach).float().mean((1, 2))
