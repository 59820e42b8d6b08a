"""The drawing board: draw with the mouse, and pictures follow the drawing.

The window, Board, changes a Wish (wish.py) and lets a second thread fulfil it; only the latest
wish counts.
"""

import itertools
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.backend_bases import Event, FigureManagerBase, KeyEvent, MouseEvent
from matplotlib.image import AxesImage
from matplotlib.widgets import CheckButtons, RangeSlider, Slider, TextBox
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from .controlnet import ControlNet
from .figures import plt
from .files import Problem
from .shapes import SIZE
from .unet import UNet
from .wish import (COUNT, FINAL, FIRST, HUES, MIDWAY, PEN, RUBBER, SHEET, Drawn, Stroke, Wish, colours,
                   conditions_of, figure_of, fulfil, heat_maps, save, sheet)


def need_window() -> None:
    """Raise Problem where matplotlib cannot open a window."""
    try:
        figure = plt.figure()
        plt.close(figure)
        if figure.canvas.manager_class is not FigureManagerBase:  # which shows nothing
            return
        why = f"matplotlib's backend {plt.get_backend()} has none"
    except Exception as error:  # each window toolkit raises its own
        why = " ".join(str(error).split())
    raise Problem(f"no window can be opened ({why}); where there is a screen, pip install pyqt6 helps;"
                  " elsewhere save a drawing as PNG and run python -m minicontrolnet sample --edge FILE")


class Answer(NamedTuple):
    """What the second thread has to show for a wish."""

    wish: Wish
    pictures: Tensor
    steps: int
    seconds: float  # since it was wished for


class Cancelled(Exception):
    """There is a newer wish."""


HELP = "Mouse: left draws, right rubs out.   Keys: u undo, c clear, e rubber, s save, h heat maps"
BLANK = np.zeros((SIZE, SIZE))  # a black panel
HINT = 'for example "red star on blue", or no word'


class Board:
    """A window with a sheet to draw on, what the ControlNets see of it, and the pictures.

    ``wish`` is what the user wants; ``wanted`` is what pictures are being made for: None while
    a stroke is drawn. ``answer`` is the latest one, ``jobs`` are those that are still to come.
    """

    def __init__(self, base: UNet, nets: dict[str, ControlNet], wish: Wish = Wish(),
                 folder: Path = Path("outputs"), weights: Sequence[str] = ()):
        self.base, self.nets, self.wish, self.folder, self.weights = base, nets, wish, folder, weights
        self.history: list[Drawn] = []
        self.wanted = self.answer = self.dragged = None
        self.rubs = self.heat = False
        self.hue = 0  # with which the palette is painted
        self.jobs: list[Future[Answer]] = []
        self.worker = ThreadPoolExecutor(1)
        with plt.rc_context({"font.size": 12, "axes.titlesize": 12, "toolbar": "None",
                             "axes.spines.top": True, "axes.spines.right": True}):
            self.figure = plt.figure("minicontrolnet board", layout="none")
            self.listen()
            self.make_panels()
            self.make_controls()
        self.redraw()
        self.ask()

    def listen(self) -> None:
        """Connect mouse, keys and the clock, in place of matplotlib's own keys."""
        canvas = self.figure.canvas
        canvas.mpl_disconnect(canvas.manager.key_press_handler_id)
        for name, react in {"button_press_event": self.press, "motion_notify_event": self.move,
                            "button_release_event": self.release, "key_press_event": self.key,
                            "draw_event": self.keep_backgrounds, "close_event": self.close}.items():
            canvas.mpl_connect(name, react)
        self.clock = canvas.new_timer(interval=30)
        self.clock.add_callback(self.look)
        self.clock.start()

    def make_panels(self) -> None:
        """The sheet, the small panels beside it, and the pictures."""

        def panel(*place: float, title: str = "", shows: Any = BLANK, **options: Any) -> tuple[Axes, AxesImage]:
            axes = self.figure.add_axes(place, xticks=[], yticks=[], title=title)
            return axes, axes.imshow(shows, **options)

        grey = {"cmap": "gray", "vmin": 0}
        self.sheet, self.ink = panel(0.02, 0.25, 0.375, 0.667, shows=sheet(Drawn()), vmax=255, **grey)
        _, self.seen = panel(0.42, 0.70, 0.122, 0.217, title="what ControlNet sees", vmax=1, **grey)
        self.cells, self.paint = panel(0.42, 0.42, 0.122, 0.217, title="colours (right: ground)")
        for lines in (self.cells.hlines, self.cells.vlines):
            lines([15.5, 31.5, 47.5], -0.5, 63.5, "lightgrey", linewidth=1)
        self.hues, _ = panel(0.42, 0.375, 0.122, 0.035, shows=HUES[None].numpy(), aspect="auto")
        self.mark = self.hues.plot([0], [0], "ko", markersize=6, markerfacecolor="none")[0]
        self.pose, self.stick = panel(0.42, 0.095, 0.122, 0.217, title="pose: drag centre to top", vmax=1, **grey)
        self.shown, self.picture = panel(0.57, 0.25, 0.41, 0.667, interpolation="nearest")
        self.shown.set_axis_off()
        self.trails = {axes: axes.plot([], [], animated=True, solid_capstyle="round")[0]
                       for axes in (self.sheet, self.pose)}
        self.figure.text(0.02, 0.965, HELP)
        self.told = self.figure.text(0.02, 0.01, "", color="firebrick", wrap=True)

    def make_controls(self) -> None:
        """The widgets below the panels; each changes one field of the wish, or two."""
        place, wish = self.figure.add_axes, self.wish
        self.prompt = TextBox(place([0.08, 0.185, 0.315, 0.05]), "prompt ", wish.prompt)
        self.prompt.on_submit(self.read_prompt)
        self.figure.text(0.08, 0.16, HINT, color="grey")
        ranges = {"guidance_scale": (1, 10, 0.1), "conditioning_scale": (0, 2, 0.05), "seed": (0, 99, 1)}
        self.sliders = {}
        for i, (name, (low, high, step)) in enumerate(ranges.items()):
            slider = Slider(place([0.70, 0.19 - 0.035 * i, 0.23, 0.025]), name.replace("_", " "), low, high,
                            valinit=getattr(wish, name), valstep=step)
            slider.on_changed(partial(self.read_slider, name))
            self.sliders[name] = slider
        self.span = RangeSlider(place([0.70, 0.085, 0.23, 0.025]), "control from, to", 0, 1,
                                valinit=(wish.control_start, wish.control_end), valstep=0.05)
        self.span.on_changed(self.read_span)
        labels = [*self.nets, "control in both branches"]
        self.checks = CheckButtons(place([0.06, 0.05, 0.25, 0.11], frameon=False), labels,
                                   [kind in wish.kinds for kind in self.nets] + [wish.in_both])
        self.checks.on_clicked(self.read_checks)

    # %% What the user does

    def press(self, event: MouseEvent) -> None:
        # Left active, the text box would paint the whole window at each press.
        self.prompt.active = self.prompt.capturekeystrokes or event.inaxes is self.prompt.ax
        if event.inaxes in self.trails and event.button in (1, 3):
            self.wanted = None  # the drawing changes: what is being worked for is old
            self.dragged, self.trail = event.inaxes, [(event.xdata, event.ydata)]
            self.erases = self.rubs or event.button == 3
            width = (RUBBER if self.erases else PEN) * self.sheet.bbox.width / SHEET * 72 / self.figure.dpi
            dark = self.dragged is self.sheet and not self.erases
            self.trails[self.dragged].set(color="black" if dark else "lightgrey", linewidth=width)
        elif event.inaxes is self.hues:
            self.hue = round(event.xdata)
            self.mark.set_xdata([self.hue])
            self.figure.canvas.draw_idle()
        elif event.inaxes is self.cells:
            self.colour(int(event.ydata) // 16 * 4 + int(event.xdata) // 16, event.button)

    def move(self, event: MouseEvent) -> None:
        """Show the stroke while it is drawn: only its panel is painted anew, which is quick."""
        if not self.dragged or event.inaxes is not self.dragged:
            return
        if self.dragged is self.pose:
            del self.trail[1:]  # a pose is one straight line
        self.trail.append((event.xdata, event.ydata))
        line = self.trails[self.dragged]
        line.set_data(*zip(*self.trail))
        self.figure.canvas.restore_region(self.backgrounds[self.dragged])
        self.dragged.draw_artist(line)
        self.figure.canvas.blit(self.dragged.bbox)

    def release(self, event: MouseEvent) -> None:
        if not self.dragged:
            return
        axes, self.dragged, drawn = self.dragged, None, self.wish.drawn
        if axes is self.sheet:
            self.draw(replace(drawn, strokes=(*drawn.strokes, Stroke(tuple(self.trail), self.erases))))
        else:
            centre, tip = (tuple(round(float(place) + 0.5, 1) for place in self.trail[i]) for i in (0, -1))
            self.draw(replace(drawn, pose=None if self.erases else (centre, tip)))

    def colour(self, cell: int, button: int) -> None:
        """A click on the palette: light a cell, or put it out; a right one gives the others their hue."""
        drawn, cells = self.wish.drawn, list(self.wish.drawn.cells)
        turned = lambda hue: self.hue if hue != self.hue else None
        if button == 3:
            self.draw(replace(drawn, ground=turned(drawn.ground)))
        else:
            cells[cell] = turned(cells[cell])
            self.draw(replace(drawn, cells=tuple(cells)))

    def key(self, event: KeyEvent) -> None:
        if self.prompt.capturekeystrokes or self.dragged:
            return  # a prompt is being typed, or the mouse is busy
        if event.key == "u" and self.history:
            self.change(drawn=self.history.pop())
        elif event.key == "c":
            self.draw(Drawn())
        elif event.key == "e":
            self.rubs = not self.rubs
            self.redraw()
        elif event.key == "h":
            self.heat = not self.heat
            self.show_answer()
        elif event.key == "s":
            self.save()

    def read_prompt(self, text: str) -> None:
        if text != self.wish.prompt:
            self.change(prompt=text)
        self.prompt.stop_typing()  # else Enter is followed by more letters, not by keys

    def read_slider(self, name: str, value: float) -> None:
        self.change(**{name: int(value) if name == "seed" else round(float(value), 2)})

    def read_span(self, span: tuple[float, float]) -> None:
        start, end = (round(float(share), 2) for share in span)
        if start < end:
            self.change(control_start=start, control_end=end)

    def read_checks(self, label: str) -> None:
        *on, in_both = self.checks.get_status()
        self.change(kinds=tuple(itertools.compress(self.nets, on)), in_both=in_both)

    def draw(self, drawn: Drawn) -> None:
        """Change what is drawn, so that undo can go back."""
        self.history.append(self.wish.drawn)
        self.change(drawn=drawn)

    def change(self, **fields: Any) -> None:
        """Change the wish and begin to work for it."""
        self.wish = replace(self.wish, **fields)
        self.redraw()
        self.ask()

    def save(self) -> None:
        answer = self.answer
        if not answer or answer.wish is not self.wish or answer.steps != FINAL:
            return self.tell("not saved: these pictures are not yet what was asked for; wait for them")
        try:
            out = save(self.wish, answer.pictures, self.folder, self.weights)
            self.tell(f"saved {out}; {out.with_suffix('.txt')} has the command that draws the same")
        except Problem as problem:
            self.tell(str(problem))

    def close(self, event: Event) -> None:
        self.wanted = None
        self.clock.stop()
        self.worker.shutdown(wait=False, cancel_futures=True)

    # %% The second thread

    def ask(self) -> None:
        """Begin to work for the wish as it is now: a rough answer, then the final one."""
        self.wanted, begin = self.wish, time.perf_counter()
        self.tell("")
        self.jobs = [self.worker.submit(self.work, self.wish, steps, begin) for steps in (FIRST, FINAL)]

    def work(self, wish: Wish, steps: int, begin: float) -> Answer:
        """In the second thread: fulfil a wish, unless there is a newer one."""

        def stop_if_old(*_: Any) -> None:
            if wish is not self.wanted:
                raise Cancelled

        stop_if_old()
        with self.base.register_forward_pre_hook(stop_if_old):  # before each step
            return Answer(wish, fulfil(wish, self.base, self.nets, steps), steps, time.perf_counter() - begin)

    def look(self) -> None:
        """In the window's thread, again and again: show what the second one has found."""
        while self.wanted and self.jobs and self.jobs[0].done():
            job = self.jobs.pop(0)
            if not (error := job.exception()):
                self.tell("")
                self.answer = job.result()
                self.show_answer()
                continue
            self.jobs.clear()
            self.tell(str(error))
            if not isinstance(error, Problem):  # a mistake of ours: its traceback is for the terminal
                traceback.print_exception(error)
                self.tell(f"no pictures: {type(error).__name__}, see the terminal")

    # %% What the user sees

    def show_answer(self) -> None:
        if not self.answer:
            return
        wish, pictures, steps, seconds = self.answer
        conditions, title = conditions_of(wish.drawn, wish.kinds), f"{steps} steps: {seconds:.1f} s"
        if self.heat and conditions:
            pictures = heat_maps(wish, self.nets, pictures[0])
            title = f"the 13 controls at t = {MIDWAY}, shallow to deep, the middle last"
        elif self.heat:
            title = "no control, so no heat maps (h: back)"
        grid = make_grid(pictures, 4 if len(pictures) > COUNT else 2, padding=2, pad_value=1.0)
        self.picture.set_data(rearrange(grid, "c h w -> h w c").numpy())
        self.shown.title.set_text(title)
        self.seen.set_data(conditions["edge"][0, 0].numpy() if "edge" in conditions else BLANK)
        self.figure.canvas.draw_idle()

    def redraw(self) -> None:
        """Show what is drawn."""
        drawn = self.wish.drawn
        self.ink.set_data(sheet(drawn))
        title = "rub out here (e: draw again)" if self.rubs else "draw here: one closed outline"
        self.sheet.title.set_text(title)
        self.paint.set_data(colours(drawn) or Image.new("RGB", (SIZE, SIZE), "white"))
        self.stick.set_data(figure_of(drawn.pose)[0, 0].numpy() if drawn.pose else BLANK)
        self.figure.canvas.draw_idle()

    def tell(self, sentence: str) -> None:
        self.told.set_text(sentence)
        self.figure.canvas.draw_idle()

    def keep_backgrounds(self, event: Event) -> None:
        self.backgrounds = {axes: self.figure.canvas.copy_from_bbox(axes.bbox) for axes in self.trails}
