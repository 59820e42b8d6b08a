"""The drawing board, driven by mouse and key events, without a display."""

import shlex
import threading
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backend_bases import CloseEvent, KeyEvent, MouseEvent

matplotlib.use("agg")

from minicontrolnet import Problem, board, load_base, load_control, mask_iou, mask_of, wish
from minicontrolnet.__main__ import main
from minicontrolnet.board import Board
from minicontrolnet.conditions import CHANNELS
from minicontrolnet.drawings import edges_from_drawing, palette_from_picture
from minicontrolnet.figures import plt
from minicontrolnet.shapes import SIZE
from minicontrolnet.wish import Drawn, Stroke, Wish, conditions_of, fulfil, heat_maps, paper_from, sheet

SQUARE = ((60, 60), (196, 60), (196, 196), (60, 196), (60, 60))


@pytest.fixture(scope="module")
def networks():
    """What ships."""
    base = load_base()
    return base, {kind: load_control(kind, base) for kind in CHANNELS}


class Hand:
    """A board, and what a person does with it."""

    def __init__(self, networks, folder: Path, **options):
        with plt.rc_context({"figure.dpi": 50}):
            self.board = Board(*networks, **options, folder=folder)
        self.canvas = self.board.figure.canvas
        self.canvas.draw()
        self.canvas.draw_idle = lambda: None  # nobody looks

    def at(self, name, axes, point, button=1):
        x, y = axes.transData.transform(point)
        MouseEvent(name, self.canvas, x, y, button)._process()

    def press(self, axes, point, button=1):
        self.at("button_press_event", axes, point, button)

    def draw(self, *points, axes=None, button=1):
        axes = axes or self.board.sheet
        self.press(axes, points[0], button)
        for point in points[1:]:
            self.at("motion_notify_event", axes, point, button)
        self.at("button_release_event", axes, points[-1], button)

    def key(self, *keys):
        for key in keys:
            KeyEvent("key_press_event", self.canvas, key)._process()

    def type(self, text):
        self.draw((0.5, 0.5), axes=self.board.prompt.ax)
        self.key("end", *["backspace"] * len(self.board.prompt.text), *text, "enter")

    def wait(self):
        """Until there are final pictures for what is asked, or a sentence; returns the pictures."""
        end = time.perf_counter() + 120
        while time.perf_counter() < end:
            self.board.look()
            answer = self.board.answer
            if answer and answer.wish is self.board.wish and answer.steps == board.FINAL:
                break
            if self.said() and self.board.wanted is self.board.wish:
                break
            time.sleep(0.01)
        else:
            pytest.fail("no answer")
        return self.board.answer and self.board.answer.pictures

    def close(self):
        CloseEvent("close_event", self.canvas)._process()
        plt.close(self.board.figure)

    def said(self):
        return self.board.told.get_text()


@pytest.fixture
def hand(networks, tmp_path, monkeypatch):
    """A new board; two steps stand for 25 unless a test looks at the pictures."""
    monkeypatch.setattr(board, "FIRST", 1)
    monkeypatch.setattr(board, "FINAL", 2)
    monkeypatch.setattr(wish, "FINAL", 2)
    hand = Hand(networks, tmp_path)
    yield hand
    hand.close()


def edges(hand):
    return conditions_of(hand.board.wish.drawn, hand.board.wish.kinds).get("edge")


# %% Drawing


def test_a_square_is_drawn_and_the_pictures_follow(networks, tmp_path):
    hand = Hand(networks, tmp_path, wish=Wish(prompt="red square on blue"))
    hand.draw(*SQUARE)
    pictures = hand.wait()
    asked = torch.zeros(1, 1, SIZE, SIZE)
    asked[..., 15:49, 15:49] = 1  # four pixels of the sheet are one of a picture
    assert pictures.shape == (board.COUNT, 3, SIZE, SIZE)
    assert mask_iou(mask_of(pictures), asked.expand(board.COUNT, -1, -1, -1)).min() > 0.8
    assert pictures[:, 0, 24:40, 24:40].mean() > 2 * pictures[:, 2, 24:40, 24:40].mean(), "it is red"
    hand.close()


def test_an_empty_board_draws_without_control(hand, networks):
    pictures = hand.wait()
    assert torch.equal(pictures, fulfil(Wish(), networks[0], {}, 2))
    assert not conditions_of(hand.board.wish.drawn, hand.board.wish.kinds)
    hand.draw(*SQUARE)
    assert not torch.equal(hand.wait(), pictures)
    hand.board.checks.set_active(0)  # without its ControlNet, a drawing counts for nothing
    assert torch.equal(hand.wait(), pictures)


def test_undo_and_clear_do_what_they_say(hand):
    hand.key("u")  # nothing to undo
    empty = sheet(hand.board.wish.drawn)
    hand.draw(*SQUARE)
    one = sheet(hand.board.wish.drawn)
    hand.draw((20, 20), (40, 230))
    assert sheet(hand.board.wish.drawn) != one != empty
    hand.key("u")
    assert sheet(hand.board.wish.drawn) == one
    hand.key("c")
    assert sheet(hand.board.wish.drawn) == empty
    hand.key("u")
    assert sheet(hand.board.wish.drawn) == one
    hand.key("u", "u")
    assert sheet(hand.board.wish.drawn) == empty
    hand.wait()
    assert (hand.board.ink.get_array() == 255).all() and not hand.board.seen.get_array().any()


@pytest.mark.parametrize("by_key", [False, True])
def test_the_rubber_rubs_out(hand, by_key):
    hand.draw(*SQUARE)
    before = np.array(sheet(hand.board.wish.drawn))
    hand.key(*"e" * by_key)
    hand.draw((196, 100), (196, 150), button=1 if by_key else 3)
    after = np.array(sheet(hand.board.wish.drawn))
    assert (before[100:150, 190:200] < 255).any() and (after[100:150, 190:200] == 255).all()
    assert (after[:80] == before[:80]).all() and (after[:, :180] == before[:, :180]).all()
    assert ("rub out" in hand.board.sheet.get_title()) == by_key
    hand.key(*"e" * by_key)
    hand.draw((30, 30), (30, 60))
    assert sheet(hand.board.wish.drawn).getpixel((30, 45)) == 0


def test_a_stroke_is_seen_while_it_is_drawn(hand):
    hand.press(hand.board.sheet, (60, 60))
    before = np.array(hand.canvas.buffer_rgba())
    hand.at("motion_notify_event", hand.board.sheet, (196, 60))
    changed = (np.array(hand.canvas.buffer_rgba()) != before).any(-1)
    rows, columns = changed.nonzero()
    assert 120 < np.ptp(columns) < 140 and np.ptp(rows) < 8


def test_a_palette_is_painted_by_clicks(hand):
    hand.press(hand.board.hues, (6, 0))  # red
    hand.press(hand.board.cells, (20, 40))  # second column, third row
    hand.press(hand.board.hues, (5, 0))  # blue
    hand.press(hand.board.cells, (60, 60), button=3)
    drawn = hand.board.wish.drawn
    assert [hue for hue in drawn.cells if hue is not None] == [6] and drawn.cells[9] == 6
    assert drawn.ground == 5
    palette = conditions_of(drawn, ("palette",))["palette"][0]
    assert palette[0, 40, 20] > 0.8 and palette[2, 0, 0] == pytest.approx(0.3 * 0.95, abs=0.01)
    hand.press(hand.board.hues, (6, 0))
    hand.press(hand.board.cells, (20, 40))  # the same once more puts it out
    assert set(hand.board.wish.drawn.cells) == {None}
    hand.key("c")
    assert not conditions_of(hand.board.wish.drawn, ("palette",))


def test_a_pose_is_one_drag(hand):
    hand.draw((31.5, 39.5), (10, 30), (35.5, 19.5), axes=hand.board.pose)
    assert hand.board.wish.drawn.pose == ((32, 40), (36, 20))
    figure = conditions_of(hand.board.wish.drawn, ("pose",))["pose"]
    assert figure[0, 0, 39, 31] == 1 and figure[0, 0, 30, 33:35].max() > 0.9
    assert hand.board.stick.get_array().max() == 1
    hand.draw((30, 30), (30, 40), axes=hand.board.pose, button=3)
    assert hand.board.wish.drawn.pose is None


def test_the_file_of_a_drawing_comes_onto_the_sheet(tmp_path):
    """Board and file agree: the lines found on the sheet are those found in the file."""
    sheet(Drawn((Stroke(SQUARE),))).resize((600, 600)).save(tmp_path / "drawing.png")
    drawn = Drawn(paper=paper_from(tmp_path / "drawing.png"))
    near = lambda one, other: torch.nn.functional.max_pool2d(one, 3, 1, 1)[other > 0].mean()
    found, again = edges_from_drawing(tmp_path / "drawing.png"), conditions_of(drawn, ("edge",))["edge"]
    assert near(found, again) > 0.98 and near(again, found) > 0.98


# %% What is said


def test_a_bad_prompt_tells_the_vocabulary_and_keeps_the_last_pictures(hand):
    hand.type("red")
    pictures = hand.wait()
    hand.type("pink")
    assert torch.equal(hand.wait(), pictures) and hand.board.answer.wish.prompt == "red"
    assert '"pink"' in hand.said() and "purple" in hand.said() and "triangle" in hand.said()
    hand.key("s")
    assert "not saved" in hand.said()
    hand.type("blue")
    hand.wait()
    assert not hand.said() and hand.board.answer.wish.prompt == "blue"


def test_keys_typed_into_the_prompt_do_nothing_else_and_enter_ends_it(hand):
    hand.draw(*SQUARE)
    hand.type("such")  # s, u, c and h are keys of the board
    assert hand.board.wish.prompt == "such" and len(hand.board.wish.drawn.strokes) == 1
    hand.key("c")
    assert not hand.board.wish.drawn.strokes and hand.board.wish.prompt == "such"
    hand.type("")
    hand.draw((0.5, 0.5), axes=hand.board.prompt.ax)
    hand.key(*"star")
    hand.draw(*SQUARE)  # a click elsewhere ends it, too, and is a stroke
    assert hand.board.wish.prompt == "star" and len(hand.board.wish.drawn.strokes) == 1


def test_matplotlib_keys_do_not_collide(hand, monkeypatch):
    """s would save the window, c go back, h home, q close it, and so on."""
    monkeypatch.setattr(matplotlib.backend_bases, "key_press_handler", lambda *_: pytest.fail("collision"))
    hand.key(*"ucehsqgkl")
    assert plt.fignum_exists(hand.board.figure.number)


def test_a_dot_is_no_drawing(hand):
    hand.draw(*SQUARE)
    pictures = hand.wait()
    hand.key("c")
    hand.draw((100, 100))
    assert torch.equal(hand.wait(), pictures) and "no line drawing" in hand.said()


# %% The second thread


def test_a_newer_stroke_cancels_the_older_drawing(hand, monkeypatch):
    """The base is held in its first step; once it may go on, only the new wish is worked for."""
    hand.wait()
    held, go_on, steps = threading.Event(), threading.Event(), []

    def hold(*_):
        steps.append(hand.board.wanted)
        held.set()
        assert go_on.wait(30)

    with hand.board.base.register_forward_hook(hold):
        hand.draw(*SQUARE)
        old = hand.board.wish
        assert held.wait(30)
        hand.press(hand.board.sheet, (20, 20))
        assert hand.board.wanted is None
        hand.at("button_release_event", hand.board.sheet, (40, 230))
        go_on.set()
        hand.wait()
    assert steps.count(old) == 1 and hand.board.answer.wish is hand.board.wish is not old


def test_a_mistake_in_the_second_thread_becomes_a_sentence(hand, monkeypatch, capsys):
    pictures = hand.wait()
    monkeypatch.setattr(board, "fulfil", lambda *_: 1 / 0)
    hand.draw(*SQUARE)
    assert torch.equal(hand.wait(), pictures) and "ZeroDivisionError" in hand.said()
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.undo()
    hand.key("u")
    hand.wait()
    assert not hand.said()


def test_closing_the_window_stops_the_second_thread(hand):
    hand.wait()
    worker, = hand.board.worker._threads
    with hand.board.base.register_forward_hook(lambda *_: time.sleep(0.2)):
        hand.draw(*SQUARE)
        hand.close()
        worker.join(5)
    assert not worker.is_alive() and not hand.board.base._forward_pre_hooks


# %% Controls, heat maps, files


def test_each_control_changes_its_part_of_the_wish(hand):
    hand.board.sliders["guidance_scale"].set_val(4.1)
    hand.board.sliders["conditioning_scale"].set_val(0.5)
    hand.board.sliders["seed"].set_val(7)
    hand.board.span.set_val((0.2, 0.62))
    hand.board.checks.set_active(1)
    hand.board.checks.set_active(3)
    asked = hand.board.wish
    assert (asked.guidance_scale, asked.conditioning_scale, asked.seed) == (4.1, 0.5, 7)
    assert (asked.control_start, asked.control_end) == (0.2, 0.6)
    assert asked.kinds == ("edge", "pose") and asked.in_both and type(asked.seed) is int
    hand.board.span.set_val((0.4, 0.4))  # never, which sample refuses
    assert hand.board.wish is asked


def test_heat_maps_are_those_of_the_13_controls(hand, networks):
    hand.draw(*SQUARE)
    pictures = hand.wait()
    maps = heat_maps(hand.board.wish, networks[1], pictures[0])
    assert maps.shape == (13, 3, SIZE, SIZE) and maps.min() >= 0 and maps.max() <= 1
    assert len({tuple(one.flatten().tolist()) for one in maps}) == 13, "no two are the same"
    before = hand.board.picture.get_array().copy()
    hand.key("h")
    assert "13 controls" in hand.board.shown.get_title()
    assert hand.board.picture.get_array().shape != before.shape
    hand.key("h")
    assert (hand.board.picture.get_array() == before).all()
    hand.key("c", "h")
    hand.wait()
    assert "no heat maps" in hand.board.shown.get_title()


def test_what_is_saved_can_be_drawn_again(hand, tmp_path):
    """By the line that was saved, in every byte."""
    hand.draw(*SQUARE)
    hand.draw((31, 40), (36, 20), axes=hand.board.pose)
    hand.board.sliders["seed"].set_val(3)
    hand.board.span.set_val((0, 0.7))
    hand.board.checks.set_active(3)
    hand.type("red square")
    hand.wait()
    hand.key("s")
    assert "saved" in hand.said()
    saved = (tmp_path / "board_001.png").read_bytes()
    line = (tmp_path / "board_001.txt").read_text()
    (tmp_path / "board_001.png").unlink()
    python, m, package, *words = shlex.split(line)
    assert [python, m, package] == ["python", "-m", "minicontrolnet"]
    main(words)
    assert (tmp_path / "board_001.png").read_bytes() == saved


def test_a_saved_palette_gives_the_same_condition(tmp_path):
    """To the last bits of a sum: sample puts the ground aside and back."""
    drawn = Drawn(cells=(6, None, 2, 0) * 4, ground=5)
    wish.colours(drawn).save(tmp_path / "palette.png")
    again = palette_from_picture(tmp_path / "palette.png")
    assert torch.allclose(conditions_of(drawn, ("palette",))["palette"], again, rtol=0, atol=1e-6)


def test_nothing_that_was_saved_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(wish.figures, "save_sample", lambda conditions, pictures, path, **_: path.touch())
    names = [wish.save(Wish(seed=seed), torch.zeros(4, 3, SIZE, SIZE), tmp_path).name for seed in (5, 6)]
    assert names == ["board_001.png", "board_002.png"]
    assert "--seed 5" in (tmp_path / "board_001.txt").read_text()


def test_a_folder_that_cannot_be_written_is_a_sentence(networks, hand, tmp_path):
    hand.wait()
    (tmp_path / "file").write_text("")
    hand.board.folder = tmp_path / "file"
    hand.key("s")
    assert "cannot write" in hand.said()
    assert plt.get_fignums() == [hand.board.figure.number], "another would keep the program from ending"


@pytest.mark.parametrize("words, said", [
    ([], "no window can be opened"),
    (["--prompt", "pink star"], '"pink"'),
    (["--edge", "nowhere.png"], "does not exist"),
    (["--edge-weights", "nowhere.pt"], "nowhere.pt does not exist"),
])
def test_the_command_says_what_is_wrong_in_one_sentence(words, said, monkeypatch):
    """Under agg no window can be opened; the rest as if it could."""
    monkeypatch.setattr("sys.excepthook", None)
    if words:
        monkeypatch.setattr(board, "need_window", lambda: None)
    with pytest.raises(Problem, match=said) as end:
        main(["board", *words])
    assert "\n" not in str(end.value) and not plt.get_fignums()


def test_the_command_opens_a_board(tmp_path, monkeypatch):
    """With a file on its sheet, and the weights that were named in the line that is saved."""
    sheet(Drawn((Stroke(SQUARE),))).save(tmp_path / "drawing.png")
    monkeypatch.setattr("sys.excepthook", None)
    monkeypatch.setattr(board, "need_window", lambda: None)
    opened = []
    monkeypatch.setattr(board, "Board", lambda *given: opened.append(given))
    monkeypatch.setattr(plt, "show", lambda: None)
    weights = Path(wish.__file__).parent / "weights" / "pose.pt"
    main(["board", "--edge", str(tmp_path / "drawing.png"), "--prompt", "red", "--seed", "5",
          "--out", str(tmp_path), "--pose-weights", str(weights)])
    (_, nets, asked, folder, words), = opened
    assert list(nets) == list(CHANNELS) and (asked.prompt, asked.seed, folder) == ("red", 5, tmp_path)
    assert list(words) == ["--pose-weights", weights]
    assert conditions_of(asked.drawn, asked.kinds)["edge"].sum() > 80
