"""The drawing board: draw with the mouse, and pictures follow the drawing.

A Wish is all that pictures are made from. What follows from it (conditions, pictures, the
command that draws the same) are functions without a window. The window, Board, changes the wish
and lets a second thread fulfil it; whatever the wish was before, only the latest one counts.
"""

import queue
import shlex
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.backend_bases import KeyEvent, MouseEvent
from matplotlib.widgets import CheckButtons, RangeSlider, Slider, TextBox
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from . import figures
from .conditions import palette, stick_figure
from .controlnet import ControlNet
from .diffusion import TIMESTEPS, q_sample
from .drawings import trace
from .figures import plt
from .files import Problem, write_atomically
from .sampling import GUIDANCE, compose, sample, weigh
from .shapes import COLOURS, DARK, SIZE, tokenize
from .unet import UNet

SHEET = 256  # the sheet's pixels a side; a drawing's file has as many
PEN, RUBBER = 5, 20  # their widths on the sheet
FIRST, FINAL = 5, 25  # steps of the first answer, and of the one that stays
COUNT = 4  # pictures, each from a noise of its own
MIDWAY = TIMESTEPS // 2  # the time at which controls are looked at
HUES = (torch.tensor(list(COLOURS.values())) * 255).round().byte()

Point = tuple[float, float]


# %% What is wished for, and what follows from it


class Stroke(NamedTuple):
    """A line drawn or rubbed out in one go."""

    points: tuple[Point, ...]  # x, y in pixels of the sheet
    rubs: bool = False


class Drawn(NamedTuple):
    """What the mouse has made; undo goes back to the one before."""

    strokes: tuple[Stroke, ...] = ()
    cells: tuple[int | None, ...] = (None,) * 16  # of the palette: hues of the lit ones
    ground: int | None = None  # hue of the other cells
    pose: tuple[Point, Point] | None = None  # centre and tip in pixels of the picture


@dataclass(frozen=True, eq=False)
class Wish:
    """All that pictures are made from; the names are sample's. Equal is only what is the same."""

    drawn: Drawn = Drawn()
    paper: Image.Image | None = None  # what was on the sheet before
    kinds: tuple[str, ...] = ("edge", "palette", "pose")  # conditions that count, if drawn
    prompt: str = ""
    guidance_scale: float = GUIDANCE
    conditioning_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    in_both: bool = False
    seed: int = 0


def sheet(wish: Wish) -> Image.Image:
    """The drawing in black on white, as a file would hold it."""
    image = wish.paper.copy() if wish.paper else Image.new("L", (SHEET, SHEET), 255)
    pen = ImageDraw.Draw(image)
    for points, rubs in wish.drawn.strokes:
        width, tone = (RUBBER, 255) if rubs else (PEN, 0)
        pen.line(points, tone, width, joint="curve")
        for x, y in (points[0], points[-1]):
            pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], tone)
    return image


def colours(drawn: Drawn) -> Image.Image:
    """The palette's 4x4 cells as a picture: lit ones, the others in the ground's dark hue."""
    ground = (DARK * HUES[drawn.ground or 0]).round().byte()
    cells = torch.stack([ground if hue is None else HUES[hue] for hue in drawn.cells])
    picture = rearrange(cells, "(y x) c -> c y x", x=4)
    return to_pil_image(picture).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def figure_of(pose: tuple[Point, Point]) -> Tensor:
    """A pose's stick figure (1, 1, 64, 64)."""
    return stick_figure(*torch.tensor(pose)[:, None] * 2 / SIZE - 1)


def drawn_kinds(wish: Wish) -> list[str]:
    """The conditions that were drawn and are to count."""
    drawn, inked = wish.drawn, sheet(wish).getextrema()[0] < 255
    has_colour = drawn.ground is not None or any(hue is not None for hue in drawn.cells)
    there = {"edge": inked, "palette": has_colour, "pose": drawn.pose is not None}
    return [kind for kind in wish.kinds if there[kind]]


def conditions_of(wish: Wish) -> dict[str, Tensor]:
    """The conditions (1, c, 64, 64) of what was drawn. Raises Problem if the lines are none."""
    tensor = lambda image: pil_to_tensor(image)[None] / 255
    make = {"edge": lambda: trace(tensor(sheet(wish)).expand(-1, 3, -1, -1), torch.ones(1, 1, SHEET, SHEET)).edges,
            "palette": lambda: palette(tensor(colours(wish.drawn))),
            "pose": lambda: figure_of(wish.drawn.pose)}
    return {kind: make[kind]() for kind in drawn_kinds(wish)}


def noise_of(wish: Wish) -> Tensor:
    """The noises (COUNT, 3, 64, 64) that the seed gives, here as in ``sample``."""
    return torch.randn(COUNT, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(wish.seed))


def fulfil(wish: Wish, base: UNet, nets: dict[str, ControlNet], conditions: dict[str, Tensor],
           steps: int) -> Tensor:
    """The pictures (COUNT, 3, 64, 64) of a wish, by as many steps."""
    controls = [(nets[kind], condition, wish.conditioning_scale)
                for kind, condition in conditions.items()]
    return sample(base, wish.prompt, noise_of(wish), controls, wish.guidance_scale, steps,
                  in_both=wish.in_both, control_start=wish.control_start,
                  control_end=wish.control_end).cpu()


def save(wish: Wish, conditions: dict[str, Tensor], pictures: Tensor, folder: Path,
         weights: Sequence[str] = ()) -> Path:
    """Write the pictures, what was drawn, and the command that makes the same from it."""
    number = len(list(folder.glob("board_*.txt"))) + 1
    out = folder / f"board_{number:03}.png"
    words = ["sample", "--prompt", wish.prompt, "--count", COUNT, "--seed", wish.seed, "--steps", FINAL]
    for name in ("guidance_scale", "conditioning_scale", "control_start", "control_end"):
        words += [f"--{name.replace('_', '-')}", getattr(wish, name)]
    words += ["--in-both"] * wish.in_both
    for kind, image in (("edge", sheet(wish)), ("palette", colours(wish.drawn))):
        if kind in conditions:
            words += [f"--{kind}", out.with_stem(f"{out.stem}_{kind}")]
            with write_atomically(words[-1]) as file:
                image.save(file, format="png")
    if "pose" in conditions:
        words += ["--pose", *sum(wish.drawn.pose, ())]
    figures.save_sample(conditions, pictures, out, title=f'prompt: "{wish.prompt}"')
    line = shlex.join(map(str, ["python", "-m", "minicontrolnet", *words, *weights, "--out", out]))
    with write_atomically(out.with_suffix(".txt")) as file:
        file.write(f"{line}\n".encode())
    return out


@torch.no_grad()
def heat_maps(wish: Wish, nets: dict[str, ControlNet], conditions: dict[str, Tensor],
              picture: Tensor) -> Tensor:
    """The 13 controls for one picture (3, 64, 64) midway as colours (13, 3, 64, 64).

    Each map is the mean size over its channels, and is shown from its own 0 to its own largest.
    """
    t = torch.tensor([MIDWAY])
    xt, prompt = q_sample(picture[None] * 2 - 1, t, noise_of(wish)[:1]), tokenize(wish.prompt)
    device = next(next(iter(nets.values())).parameters()).device
    xt, t, prompt = xt.to(device), t.to(device), prompt.to(device)
    controls = compose(*(weigh(nets[kind](xt, t, prompt, condition.to(device)), wish.conditioning_scale)
                         for kind, condition in conditions.items()))
    sizes = [control.abs().mean(1, keepdim=True).cpu() for control in controls]
    grey = torch.cat([torch.nn.functional.interpolate(size / size.max().clamp(min=1e-6), (SIZE, SIZE))
                      for size in sizes])
    return torch.from_numpy(plt.colormaps["magma"](grey[:, 0].numpy())[..., :3]).movedim(-1, 1)


# %% The window


class Answer(NamedTuple):
    """What the second thread has to show for a wish."""

    wish: Wish
    conditions: dict[str, Tensor] | None = None
    pictures: Tensor | None = None
    steps: int = 0
    seconds: float = 0.0
    problem: str = ""


class Cancelled(Exception):
    """There is a newer wish."""


HELP = "left button draws, right rubs out; keys: u undo, c clear, e rubber, h controls as heat maps, s save"


class Board:
    """A window with a sheet to draw on, what the networks see of it, and the pictures.

    ``wish`` is what the user wants now and ``wanted`` what is being worked for: None while a
    stroke is drawn. ``answer`` is the latest one that has pictures.
    """

    def __init__(self, base: UNet, nets: dict[str, ControlNet], wish: Wish = Wish(),
                 folder: Path = Path("outputs"), weights: Sequence[str] = ()):
        self.base, self.nets, self.wish = base, nets, wish
        self.folder, self.weights = folder, weights
        self.history: list[Drawn] = []
        self.wanted = self.working = self.answer = None
        self.rubs = self.heat = self.settled = False
        self.dragged, self.trail, self.hue = None, [], 0
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.worker = ThreadPoolExecutor(1)
        self.base.register_forward_pre_hook(self.stop_if_old)
        with plt.rc_context({"font.size": 11, "axes.titlesize": 11, "toolbar": "None"}):
            self.figure = plt.figure("minicontrolnet board", layout="none")
            self.make_panels()
            self.make_controls()
        self.listen()
        self.redraw()
        self.ask()

    def make_panels(self) -> None:
        """The sheet, the small panels beside it, and where pictures go."""
        panel = lambda *place, title="", **names: self.figure.add_axes(
            place, xticks=[], yticks=[], title=title, **names)
        self.sheet = panel(0.02, 0.25, 0.375, 0.667, title="draw here: one closed outline")
        self.seen = panel(0.42, 0.70, 0.122, 0.217, title="what the copy sees")
        self.cells = panel(0.42, 0.435, 0.122, 0.217, title="palette: click (right: ground)")
        self.hues = panel(0.42, 0.39, 0.122, 0.035)
        self.pose = panel(0.42, 0.13, 0.122, 0.217, title="pose: drag centre to top")
        self.shown = panel(0.57, 0.25, 0.41, 0.667)
        for axes in (self.sheet, self.cells, self.hues, self.pose):
            axes.spines[:].set_visible(True)
        self.ink = self.sheet.imshow(sheet(self.wish), cmap="gray", vmin=0, vmax=255)
        self.lines = self.seen.imshow(torch.zeros(SIZE, SIZE), cmap="gray", vmin=0, vmax=1)
        self.paint = self.cells.imshow(colours(self.wish.drawn))
        self.stick = self.pose.imshow(torch.zeros(SIZE, SIZE), cmap="gray", vmin=0, vmax=1)
        self.hues.imshow(HUES[None].numpy(), aspect="auto")
        self.mark = self.hues.plot([0], [0], "ko", markersize=6, markerfacecolor="none")[0]
        self.line = self.sheet.plot([], [], color="black", animated=True, solid_capstyle="round")[0]
        self.picture = self.shown.imshow(torch.ones(2 * SIZE, 2 * SIZE, 3))
        self.help = self.figure.text(0.02, 0.955, HELP)
        self.told = self.figure.text(0.02, 0.02, "", wrap=True)

    def make_controls(self) -> None:
        """The widgets below the panels; each changes one field of the wish, or two."""
        place, wish = self.figure.add_axes, self.wish
        self.prompt = TextBox(place([0.08, 0.165, 0.315, 0.05]), "prompt ", wish.prompt)
        self.prompt.on_submit(lambda text: text != self.wish.prompt and self.change(prompt=text))
        sliders = {"guidance_scale": ("guidance", 1, 10, None), "conditioning_scale": ("control's scale", 0, 2, None),
                   "seed": ("seed", 0, 99, 1)}
        self.sliders = {}
        for i, (name, (label, low, high, step)) in enumerate(sliders.items()):
            slider = Slider(place([0.67, 0.19 - 0.035 * i, 0.27, 0.025]), label, low, high,
                            valinit=getattr(wish, name), valstep=step)
            slider.on_changed(lambda value, name=name: self.change(**{name: value}))
            self.sliders[name] = slider
        self.span = RangeSlider(place([0.67, 0.085, 0.27, 0.025]), "control from .. to", 0, 1, valinit=(0, 1))
        self.span.on_changed(lambda span: self.change(control_start=span[0], control_end=span[1]))
        labels = [*self.nets, "control in both branches"]
        self.checks = CheckButtons(place([0.02, 0.055, 0.2, 0.1], frameon=False), labels,
                                   [kind in wish.kinds for kind in self.nets] + [wish.in_both])
        self.checks.on_clicked(lambda _: self.change(
            kinds=tuple(kind for kind, on in zip(self.nets, self.checks.get_status()) if on),
            in_both=self.checks.get_status()[-1]))

    def listen(self) -> None:
        """Connect mouse, keys and the clock, in place of matplotlib's own keys."""
        canvas = self.figure.canvas
        if canvas.manager and canvas.manager.key_press_handler_id:
            canvas.mpl_disconnect(canvas.manager.key_press_handler_id)
        for event, react in {"button_press_event": self.press, "motion_notify_event": self.move,
                             "button_release_event": self.release, "key_press_event": self.key,
                             "draw_event": self.keep_background}.items():
            canvas.mpl_connect(event, react)
        self.clock = canvas.new_timer(interval=30)
        self.clock.add_callback(self.look)
        self.clock.start()

    # %% What the user does

    def press(self, event: MouseEvent) -> None:
        if event.inaxes in (self.sheet, self.pose) and event.button in (1, 3):
            self.wanted = None  # the drawing changes: what is being worked for is old
            self.dragged, self.trail = event.inaxes, [(event.xdata, event.ydata)]
            self.erases = self.rubs or event.button == 3
            width = (RUBBER if self.erases else PEN) * self.sheet.bbox.width / SHEET
            self.line.set(color="lightgrey" if self.erases else "black",
                          linewidth=width * 72 / self.figure.dpi)
        elif event.inaxes is self.hues:
            self.hue = round(event.xdata)
            self.mark.set_xdata([self.hue])
            self.figure.canvas.draw_idle()
        elif event.inaxes is self.cells:
            self.colour(int(event.ydata) // 16 * 4 + int(event.xdata) // 16, ground=event.button == 3)

    def move(self, event: MouseEvent) -> None:
        """Show the stroke while it is drawn: only the sheet is painted anew, which is quick."""
        if self.dragged and event.inaxes is self.dragged:
            self.trail.append((event.xdata, event.ydata))
            if self.dragged is self.sheet:
                self.line.set_data(*zip(*self.trail))
                self.figure.canvas.restore_region(self.background)
                self.sheet.draw_artist(self.line)
                self.figure.canvas.blit(self.sheet.bbox)

    def release(self, event: MouseEvent) -> None:
        if not self.dragged:
            return
        axes, self.dragged, drawn = self.dragged, None, self.wish.drawn
        if axes is self.sheet:
            self.draw(drawn._replace(strokes=(*drawn.strokes, Stroke(tuple(self.trail), self.erases))))
        else:
            centre, tip = ((round(float(x) + 0.5, 1), round(float(y) + 0.5, 1)) for x, y in (self.trail[0], self.trail[-1]))
            self.draw(drawn._replace(pose=None if self.erases else (centre, tip)))

    def colour(self, cell: int, ground: bool) -> None:
        """A click on the palette: light a cell, or put it out; or give the unlit ones their hue."""
        drawn, cells = self.wish.drawn, list(self.wish.drawn.cells)
        if ground:
            return self.draw(drawn._replace(ground=self.hue))
        cells[cell] = self.hue if cells[cell] != self.hue else None
        self.draw(drawn._replace(cells=tuple(cells)))

    def key(self, event: KeyEvent) -> None:
        if self.prompt.capturekeystrokes or self.dragged:
            return  # a prompt is being typed, or the mouse is busy
        if event.key == "u" and self.history:
            self.change(drawn=self.history.pop())
        elif event.key == "c":
            self.draw(Drawn())
        elif event.key == "e":
            self.rubs = not self.rubs
            self.tell("the left button rubs out; e again to draw" if self.rubs else "the left button draws")
        elif event.key == "h":
            self.heat = not self.heat
            self.show_answer()
        elif event.key == "s":
            self.save()

    def draw(self, drawn: Drawn) -> None:
        """Change what is drawn, so that undo can go back."""
        self.history.append(self.wish.drawn)
        self.change(drawn=drawn)

    def change(self, **fields: Any) -> None:
        """Change the wish and begin to work for it."""
        if "drawn" in fields and fields["drawn"] == Drawn():
            fields["paper"] = None
        self.wish = replace(self.wish, **fields)
        self.redraw()
        self.ask()

    def save(self) -> None:
        if self.settled and self.answer and self.answer.wish is self.wish:
            out = save(self.wish, self.answer.conditions, self.answer.pictures, self.folder, self.weights)
            self.tell(f"saved {out}; {out.with_suffix('.txt')} has the command that draws the same")
        else:
            self.tell("the pictures are not finished; save again in a moment")

    # %% The second thread

    def ask(self) -> None:
        """Begin to work for the wish as it is now."""
        self.wanted, self.settled = self.wish, False
        self.job = self.worker.submit(self.work, self.wish, time.perf_counter())

    def work(self, wish: Wish, begin: float) -> None:
        """In the second thread: a rough answer, then the final one, as long as the wish is the latest."""
        self.working = wish
        try:
            self.stop_if_old()
            conditions = conditions_of(wish)
            self.answers.put(Answer(wish, conditions))
            for steps in (FIRST, FINAL):
                pictures = fulfil(wish, self.base, self.nets, conditions, steps)
                self.answers.put(Answer(wish, conditions, pictures, steps, time.perf_counter() - begin))
        except Problem as problem:
            self.answers.put(Answer(wish, problem=str(problem)))
        except Cancelled:
            pass

    def stop_if_old(self, *_: Any) -> None:
        """Called before each use of the base."""
        if self.working is not self.wanted:
            raise Cancelled

    def look(self) -> None:
        """In the window's thread, again and again: show what the second one has found."""
        if self.job.done():
            self.job.result()  # raises what went wrong there
        while not self.answers.empty():
            answer = self.answers.get()
            if answer.wish is self.wanted:
                self.take(answer)

    def take(self, answer: Answer) -> None:
        self.settled = bool(answer.problem) or answer.steps == FINAL
        if answer.pictures is not None:
            self.answer = answer
            self.show_answer()
        elif answer.conditions is not None:
            self.lines.set_data(answer.conditions.get("edge", torch.zeros(1, 1, SIZE, SIZE))[0, 0])
        self.tell(answer.problem)

    # %% What the user sees

    def show_answer(self) -> None:
        if not self.answer:
            return
        pictures, conditions = self.answer.pictures, self.answer.conditions
        title = f"{self.answer.steps} steps, {self.answer.seconds:.2f} s after the stroke"
        if self.heat and conditions:
            pictures = heat_maps(self.answer.wish, self.nets, conditions, pictures[0])
            title = f"the 13 controls at t = {MIDWAY}, shallow to deep, the middle last"
        elif self.heat:
            self.tell("nothing is drawn, so there is no control; h again for the pictures")
        grid = make_grid(pictures, 4 if len(pictures) > COUNT else 2, padding=2, pad_value=1.0)
        self.picture.set_data(rearrange(grid, "c h w -> h w c"))
        self.shown.title.set_text(title)
        self.figure.canvas.draw_idle()

    def redraw(self) -> None:
        """Show what is drawn."""
        self.ink.set_data(sheet(self.wish))
        self.paint.set_data(colours(self.wish.drawn))
        self.paint.set_alpha(1.0 if "palette" in drawn_kinds(self.wish) else 0.2)
        pose = self.wish.drawn.pose
        self.stick.set_data(figure_of(pose)[0, 0] if pose else torch.zeros(SIZE, SIZE))
        self.figure.canvas.draw_idle()

    def tell(self, sentence: str) -> None:
        self.told.set_text(sentence)
        self.figure.canvas.draw_idle()

    def keep_background(self, event: Any) -> None:
        self.background = self.figure.canvas.copy_from_bbox(self.sheet.bbox)
