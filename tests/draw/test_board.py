"""The board without a browser: what the ControlNets see of a drawing, and the server by urllib."""

import base64
import io
import json
import math
import re
import runpy
import shlex
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.error
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from torchvision.transforms.functional import pil_to_tensor

from conftest import LESSONS
from minicontrolnet import Control, Problem, load_base, load_control, mask_iou, mask_of, sample, seeded_noise, show_board
from minicontrolnet.conditions import CHANNELS
from minicontrolnet.draw.board import Asked, Board, Stroke, follow, saved, see, server
from minicontrolnet.draw.board.asked import READERS, read_asked
from minicontrolnet.draw.board.sheet import (advice, drawing, edge_map, is_closed, outside_of, paper_bits, palette_map, place_of,
                                            region_map)
from minicontrolnet.draw.board.turns import Turns
from minicontrolnet.run import board as command
from minicontrolnet.run.cli import main

SQUARE = [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7], [0.3, 0.3]]
PEN = {"tool": "pen", "points": SQUARE}


def stroke(points=SQUARE, tool="pen"):
    return Stroke(tuple(map(tuple, points)), tool)


@pytest.fixture(scope="module")
def networks():
    """The shipped base and its ControlNets."""
    base = load_base()
    return base, {kind: load_control(kind, base) for kind in CHANNELS}


@pytest.fixture(scope="module")
def running(networks):
    """A board that serves."""
    board = Board(*networks, Asked(prompt="red on blue", seed=7))
    thread = threading.Thread(target=board.serve_forever, daemon=True)
    thread.start()
    yield board
    board.shutdown()
    board.end()
    thread.join(5)


@pytest.fixture
def ask(running):
    """A function that posts to the board and returns the open answer."""

    def post(body, path="/pictures", page="a", **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"X-Token": running.token, "X-Page": page, **headers}
        url = f"http://127.0.0.1:{running.server_port}{path}"
        return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60)

    return post


def refused(call, *values, **options):
    """The status and the sentence of a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as error:
        call(*values, **options)
    sentence = json.loads(error.value.read())["problem"]
    assert "\n" not in sentence and "/tmp" not in sentence
    return error.value.code, sentence


def lines(answer):
    return [json.loads(line) for line in answer]


def pictures_of(message):
    """The four pictures (4, 3, 64, 64) of a message."""
    row = pil_to_tensor(Image.open(io.BytesIO(base64.b64decode(message["pictures"])))) / 255
    return torch.stack(row.split(64, dim=2))


# %% What the ControlNets see


def test_a_square_is_a_thin_line_where_it_was_drawn():
    edges = edge_map(Asked((stroke(),)))
    expected = torch.zeros(1, 1, 64, 64)
    expected[..., [19, 44], 19:45] = 1
    expected[..., 19:45, [19, 44]] = 1
    assert torch.equal(edges, expected)


def test_the_eraser_removes_and_later_strokes_draw_again():
    gap = stroke([[0.5, 0.2], [0.5, 0.4]], "eraser")
    edges = edge_map(Asked((stroke(), gap)))
    assert not edges[..., 19, 31:34].any() and edges[..., 19, [25, 40]].all() and edges[..., 44, 32].all()
    again = edge_map(Asked((stroke(), gap, stroke([[0.3, 0.3], [0.7, 0.3]]))))
    assert again[..., 19, 19:45].all()


def test_a_stroke_may_leave_the_sheet():
    edges = edge_map(Asked((stroke([[0.5, 0.5], [1.5, 0.5], [1.5, -0.5], [-0.5, -0.5]]),)))
    assert edges[..., 32, 32:].all() and edges.sum() == 32, "nothing is drawn along the border"


@pytest.mark.parametrize("half", [0.1, 0.2, 0.45, 0.5])
def test_a_drawing_that_is_too_large_is_seen_smaller(half):
    """As large as the networks know shapes; it stays on the sheet, and a small one stays as it is."""
    low, high = 0.5 - half, 0.5 + half - 0.001
    asked = Asked((stroke([[low, low], [high, low], [high, high], [low, high], [low, low]]),))
    seen = see(asked)
    places = seen.conditions["edge"][0, 0].nonzero()
    side = (places.amax(0) - places.amin(0) + 1).max().item()
    if half <= 0.2:
        assert seen.zoom == 1 and torch.equal(seen.conditions["edge"], edge_map(asked))
    else:
        assert seen.zoom < 0.65 and 30 <= side <= 34
        assert advice(asked, seen).startswith("Your drawing is larger")


def test_a_large_drawing_in_a_corner_stays_there():
    asked = Asked((stroke([[0.25, 0.25], [0.99, 0.25], [0.99, 0.99], [0.25, 0.99], [0.25, 0.25]]),))
    rows = see(asked).conditions["edge"][0, 0].nonzero().float()
    assert 0 < place_of(asked).zoom < 1 and rows.mean(0).min() > 34


def test_an_open_outline_gets_advice_and_a_closed_one_does_not():
    for points, expected in [(SQUARE[:4], True), (SQUARE, False)]:
        asked = Asked((stroke(points),))
        assert ("open" in advice(asked, see(asked))) == expected
    assert advice(Asked(), see(Asked())) == ""


HOUSE = ([[0.2, 0.5], [0.2, 0.8], [0.8, 0.8], [0.8, 0.5]], [[0.15, 0.5], [0.5, 0.2], [0.85, 0.5], [0.15, 0.5]],
         [[0.45, 0.8], [0.45, 0.62], [0.57, 0.62], [0.57, 0.8]], [[0.28, 0.57], [0.36, 0.57], [0.36, 0.65], [0.28, 0.57]])


def test_doors_and_windows_are_left_out():
    """But not while the outline is open, and not if somebody wants them."""
    house = Asked(tuple(map(stroke, HOUSE)))
    edges = edge_map(house, place_of(house))
    outer = see(house).conditions["edge"]
    assert (outer <= edges).all() and outer.sum() < 0.75 * edges.sum()
    middle = outer[..., 28:52, 24:40]
    assert middle[..., :-6, :].sum() < 4, "no line between wall and roof, no door, no window"
    assert is_closed(outer) and torch.equal(outside_of(outer) > 0, outside_of(edges) > 0), "the same silhouette"
    assert "a window or a door is left out" in advice(house, see(house))
    everything = replace(house, outer=False)
    assert torch.equal(see(everything).conditions["edge"], edge_map(everything, place_of(everything)))
    still_open = Asked((stroke(HOUSE[0]), stroke(HOUSE[2])))
    assert torch.equal(see(still_open).conditions["edge"], edge_map(still_open))


@pytest.mark.parametrize("gap", [0, 1, 2, 4])
def test_small_gaps_count_as_closed(gap):
    end = 0.3 + (gap + 0.1) / 64
    asked = Asked((stroke([[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7], [0.3, end + 1 / 64]]),))
    assert is_closed(edge_map(asked)) == (gap <= 2)


def test_a_dot_is_no_drawing():
    assert see(Asked((stroke([[0.5, 0.5]]),))).conditions == {}


def test_paper_lies_under_the_strokes():
    edges = edge_map(Asked((stroke(),)))
    asked = Asked((stroke([[0.3, 0.2], [0.3, 0.8]], "eraser"),), paper_bits(edges))
    assert torch.equal(edge_map(Asked(paper=paper_bits(edges))), edges)
    assert not edge_map(asked)[..., 19].any() and edge_map(asked)[..., 44].sum() == 26


def test_a_region_is_painted_and_removed_by_strokes():
    assert region_map(Asked((stroke(),))) is None
    left = stroke([[0.0, 0.0], [0.0, 1.0]], "region")
    region = region_map(Asked((left,)))
    assert region[..., :5].all() and not region[..., 7:].any()
    assert region_map(Asked((left, replace(left, tool="outside")))) is None


def test_palette_cells_are_painted_on_the_dark_background():
    palette = palette_map(Asked(cells=(6, *[None] * 15), background=5))
    assert palette.shape == (1, 3, 64, 64) and palette[0, 0, 0, 0] > 0.8
    assert palette[0, 2, 40, 40] == pytest.approx(0.3 * 0.95, abs=0.01)
    assert palette_map(Asked()) is None


def test_only_the_chosen_controlnets_see_the_drawing():
    asked = Asked((stroke(),), background=2, pose=((32.0, 40.0), (36.0, 20.0)))
    assert set(see(asked).conditions) == {"edge", "palette", "pose"}
    assert set(see(replace(asked, kinds=("pose",))).conditions) == {"pose"}


def test_the_saved_drawing_is_black_on_white():
    image = drawing(Asked((stroke(),)))
    assert image.size == (512, 512) and image.getpixel((256, 154)) == 0 and image.getpixel((256, 256)) == 255


# %% What is asked for


@pytest.mark.parametrize("sent, says", [
    ([], "not a JSON object"),
    ({"colour": 1}, "'colour'"),
    ({"strokes": 3}, "list of strokes"),
    ({"strokes": [{"tool": "saw", "points": SQUARE}]}, "needs a tool"),
    ({"strokes": [{"tool": "pen", "points": []}]}, "pairs x, y"),
    ({"strokes": [{"tool": "pen", "points": [[0, 0, 0]]}]}, "list of 2"),
    ({"strokes": [{"tool": "pen", "points": [[0, 1e9]]}]}, "from -1.0 to 2.0"),
    ({"strokes": [{"tool": "pen", "points": [[0, 0]] * 50_001}]}, "50,000 points"),
    ({"paper": "!"}, "64 x 64 bits"),
    ({"paper": "AAAA"}, "64 x 64 bits"),
    ({"cells": [1]}, "list of 16"),
    ({"cells": [8] + [None] * 15}, "from 0 to 7"),
    ({"pose": [[1, 2]]}, "list of 2"),
    ({"kinds": ["depth"]}, "edge, palette, pose"),
    ({"kinds": [{}]}, "edge, palette, pose"),
    ({"connections": [1] * 12}, "list of 13"),
    ({"prompt": "pink star"}, '"pink"'),
    ({"prompt": ["red"]}, "text"),
    ({"guidance_scale": float("nan")}, "a number"),
    ({"guidance_scale": True}, "a number"),
    ({"control_start": 0.5, "control_end": 0.5}, "before it ends"),
    ({"in_both": 1}, "true or false"),
    ({"seed": 0.5}, "whole number"),
    ({"steps": 1000}, "from 1 to 100"),
])
def test_a_bad_value_is_one_sentence(sent, says):
    with pytest.raises(Problem, match=re.escape(says)) as problem:
        read_asked(sent)
    assert "\n" not in str(problem.value) and len(str(problem.value)) < 400


def test_every_field_can_be_sent():
    assert set(READERS) == set(Asked.__dataclass_fields__)


# %% The pictures


def test_a_square_is_drawn_and_the_pictures_follow(ask, running):
    answer = lines(ask({"strokes": [PEN], "prompt": "red square on blue", "steps": 8}))
    assert [message["step"] for message in answer] == list(range(1, 9))
    mask = torch.zeros(4, 1, 64, 64)
    mask[..., 19:45, 19:45] = 1
    last = pictures_of(answer[-1])
    assert mask_iou(mask_of(last), mask).min() > 0.8
    assert last[:, 0, 28:36, 28:36].mean() > 2 * last[:, 2, 28:36, 28:36].mean(), "they are red"
    seen = Image.open(io.BytesIO(base64.b64decode(answer[0]["edges"])))
    assert torch.equal(pil_to_tensor(seen)[None] / 255, edge_map(Asked((stroke(),))))
    assert [len(base64.b64decode(one)) ** 0.5 for one in answer[-1]["heat"]] == [16] * 3 + [8] * 3 + [4] * 3 + [2] * 4


def test_the_last_step_equals_sample(networks):
    asked = Asked((stroke(), stroke([[0.0, 0.0], [0.0, 1.0]], "region")), prompt="red", seed=3, steps=3, in_both=True,
                  connections=(0.5,) * 6 + (1.0,) * 7, conditioning_scale=0.9, pose=((32.0, 40.0), (36.0, 20.0)),
                  control_end=0.6)
    seen = see(asked)
    *_, last = follow(asked, seen, *networks)
    scale = [0.9 * factor for factor in asked.connections]
    controls = [Control(networks[1][kind], condition, scale, seen.region) for kind, condition in seen.conditions.items()]
    expected = sample(networks[0], "red", seeded_noise(4, 3), controls, steps=3, in_both=True, control_end=0.6)
    assert torch.equal(last.pictures, expected)
    assert last.heat == [], "the last step has no control"


def test_heat_maps_follow_the_sliders(networks):
    asked = Asked((stroke(),), steps=1)
    full, = follow(asked, see(asked), *networks)
    half = replace(asked, connections=(0.0,) + (0.5,) * 12)
    darker, = follow(half, see(half), *networks)
    assert len(full.heat) == 13 and all(map.max() == 1 for map in full.heat)
    assert not darker.heat[0].any() and torch.allclose(darker.heat[5], full.heat[5] / 2, atol=1e-6)


def test_a_preview_may_miss_a_narrow_window_of_control(networks):
    asked = Asked((stroke(),), control_start=0.4, control_end=0.5, steps=1)
    assert len(list(follow(asked, see(asked), *networks))) == 1


def test_a_mistake_of_ours_is_a_sentence_and_a_traceback(ask, monkeypatch, capsys):
    monkeypatch.setattr(server, "messages", lambda *_: iter([1 / 0]))
    status, sentence = refused(ask, {"steps": 1})
    assert status == 500 and "ZeroDivisionError" in sentence and "Traceback" in capsys.readouterr().err


# %% Turns


def test_a_newer_drawing_ends_the_older_one_but_not_before_its_first_picture(ask, running):
    with ThreadPoolExecutor(2) as pool:
        older = pool.submit(lambda: lines(ask({"strokes": [PEN], "steps": 100})))
        while not running.turns.at_work:
            time.sleep(0.001)
        newer = pool.submit(lambda: lines(ask({"strokes": [PEN], "steps": 2})))
        assert [message["step"] for message in newer.result(60)] == [1, 2]
        assert 1 <= len(older.result(60)) < 100


def test_scribbling_makes_no_queue():
    """Of many requests of one page one is at work and the newest waits; the others are sent away."""
    turns = Turns()
    first = turns.begin("page")
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(turns.begin, "page") for _ in range(20)]
        while sum(one.done() for one in waiting) < 19:
            time.sleep(0.001)
        assert [one.result() for one in waiting if one.done()] == [None] * 19
        assert not turns.is_newest("page", first)
        turns.end("page", first)
        ticket, = [one.result() for one in waiting if one.result()]
    assert turns.is_newest("page", ticket)
    turns.end("page", ticket)
    assert not turns.newest and not turns.at_work


def test_two_tabs_do_not_disturb_each_other(ask):
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(lambda page: lines(ask({"steps": 6}, page=page)), page) for page in "ab"]
        assert [len(one.result(60)) for one in both] == [6, 6]


def test_a_page_that_goes_away_stops_its_pictures(ask, running):
    answer = ask({"strokes": [PEN], "steps": 100})
    answer.readline()
    answer.close()
    end = time.monotonic() + 30
    while running.turns.at_work and time.monotonic() < end:
        time.sleep(0.01)
    assert not running.turns.at_work and not running.turns.newest


# %% Who may ask


def test_the_page_knows_where_it_starts_and_loads_nothing_from_elsewhere(running):
    with urllib.request.urlopen(running.address, timeout=30) as answer:
        page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    start = json.loads(re.search(r'<script type="application/json" id="start">(.*)</script>', page)[1])
    assert (start["prompt"], start["seed"], start["kinds"]) == ("red on blue", 7, list(CHANNELS))
    assert "default-src 'none'" in policy
    assert set(re.findall(r"https?://[^'\"\s)]+", page)) == {"http://www.w3.org/2000/svg"}


def test_a_lesson_is_shown_as_text(running):
    url = f"http://127.0.0.1:{running.server_port}/lesson/{{}}?token={running.token}"
    names = json.loads(re.search(r'id="start">(.*)</script>', running.page().decode())[1])["lessons"]
    with urllib.request.urlopen(url.format(names["03"]), timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain") and b"zero" in answer.read()
    status, _ = refused(urllib.request.urlopen, url.format("../README.md"), timeout=30)
    assert status == 404


@pytest.mark.parametrize("path, headers, says", [
    ("/pictures", {"X-Token": "wrong"}, "token"),
    ("/pictures", {"X-Token": ""}, "token"),
    ("/save", {"X-Token": "wrong"}, "token"),
    ("/trace", {"X-Token": "wrong"}, "token"),
    ("/pictures", {"Host": "evil.example"}, "127.0.0.1"),
    ("/pictures", {"Host": "127.0.0.1.evil.example:80"}, "127.0.0.1"),
    ("/pictures", {"Origin": "http://evil.example"}, "Another web page"),
    ("/pictures", {"Origin": "null"}, "Another web page"),
])
def test_strangers_are_refused(ask, path, headers, says):
    status, sentence = refused(ask, {"steps": 1}, path, **headers)
    assert status == 403 and says in sentence


def test_the_page_itself_needs_the_token(running):
    for query in ("", "?token=", "?token=wrong"):
        status, _ = refused(urllib.request.urlopen, f"http://127.0.0.1:{running.server_port}/{query}", timeout=30)
        assert status == 403


def test_the_board_listens_on_the_loopback_address_only(running):
    assert running.server_address[0] == "127.0.0.1"
    assert running.address.startswith("http://127.0.0.1:") and len(running.token) > 20


# %% Requests that are not as they should be


@pytest.mark.parametrize("body, status, says", [
    (b"", 400, "not JSON"),
    (b"{", 400, "not JSON"),
    (b"\xff\xfe", 400, "not JSON"),
    (b"[" * 100_000, 400, "not JSON"),
    ({"prompt": "pink"}, 400, '"pink"'),
    (b" " * 3_000_000, 413, "larger than"),
])
def test_a_bad_body_is_one_sentence(ask, body, status, says):
    got, sentence = refused(ask, body)
    assert got == status and says in sentence


def test_an_unknown_address_is_one_sentence(ask):
    assert refused(ask, {}, "/nothing")[0] == 404


@pytest.mark.parametrize("head, body, status", [
    ("POST /pictures HTTP/1.1\r\nHost: localhost\r\nX-Token: {token}\r\n\r\n", "", 411),
    ("POST /pictures HTTP/1.1\r\nHost: localhost\r\nX-Token: {token}\r\nContent-Length: -5\r\n\r\n", "", 411),
    ("POST /pictures HTTP/1.1\r\nHost: localhost\r\nX-Token: {token}\r\nContent-Length: 50\r\n\r\n", "{", 400),
    ("POST /save HTTP/1.1\r\nHost: localhost\r\nX-Token: {token}\r\nContent-Length: 99999999999\r\n\r\n", "{", 413),
    ("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", "", 501),
    ("nonsense\r\n\r\n", "", 400),
    ("GET / HTTP/1.1\r\nHost: [\r\n\r\n", "", 403),
])
def test_a_broken_request_is_one_sentence(running, head, body, status):
    with socket.create_connection(running.server_address, timeout=10) as line:
        line.sendall((head.format(token=running.token) + body).encode())
        line.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
    assert f" {status} " in answer.splitlines()[0] or answer.startswith("{")
    assert json.loads(answer.splitlines()[-1])["problem"].endswith(".")


def test_after_all_this_the_board_still_works(ask, running):
    assert len(lines(ask({"steps": 1}))) == 1


# %% Files


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_the_file_of_a_drawing_becomes_the_paper(ask):
    answer = json.load(ask(png(drawing(Asked((stroke(),)))), "/trace?as=drawing", **{"X-Name": "my%20house.png"}))
    edges = edge_map(read_asked({"paper": answer["paper"]}))
    near = torch.nn.functional.max_pool2d(edge_map(Asked((stroke(),))), 3, 1, 1)
    assert edges.sum() > 80 and (edges * near).sum() > 0.95 * edges.sum() and "my house.png" in answer["advice"]


def test_the_edges_of_a_picture_become_the_paper(ask):
    image = Image.new("RGB", (200, 200), "navy")
    image.paste("orange", (60, 60, 140, 140))
    answer = json.load(ask(png(image), "/trace?as=picture"))
    assert edge_map(read_asked({"paper": answer["paper"]})).sum() > 80


def test_a_file_that_is_no_picture_is_one_sentence(ask):
    status, sentence = refused(ask, b"no picture", "/trace", **{"X-Name": "notes.txt"})
    assert status == 400 and '"notes.txt"' in sentence


def test_the_saved_command_gives_the_same_pictures_bit_for_bit(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "FINAL", 2)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(tmp_path)
    answer = ask({"strokes": [PEN, {"tool": "region", "points": [[0.2, 0.2], [0.8, 0.8]]}], "prompt": "red square",
                  "cells": [6] + [None] * 15, "background": 5, "pose": [[31.3, 40], [36, 20.7]], "seed": 3,
                  "connections": [0.35] * 13, "conditioning_scale": 1.15, "guidance_scale": 3.3, "in_both": True,
                  "control_end": 0.72}, "/save")
    assert re.search(r'filename="(board_\w+)\.zip"', answer.headers["Content-Disposition"])
    zipfile.ZipFile(io.BytesIO(answer.read())).extractall(tmp_path)
    folder, = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "drawing.png", "pictures.png", "command.txt", "edge_map.png", "palette_map.png", "region.png"}
    python, m, package, *words = shlex.split((folder / "command.txt").read_text().splitlines()[0])
    assert [python, m, package] == ["python", "-m", "minicontrolnet"]
    main(words)
    again, before = Image.open(folder / "again.png"), Image.open(folder / "pictures.png")
    assert again.size == (256, 64) and again.tobytes() == before.tobytes()


def test_the_command_names_other_weights():
    line = saved.command(Asked(), see(Asked()), "here", ["--base-weights", "my base.pt"])
    assert "--base-weights 'my base.pt'" in line and "edge-map" not in line


@pytest.mark.parametrize("words, status", [(["--help"], 0), (["--out", "a.png"], 2)])
def test_the_command_of_the_readmes_picture_writes_nothing_for_help(words, status):
    """Nor for options that it does not have."""
    path = LESSONS / "pictures" / "board.png"
    before = path.stat().st_mtime_ns
    done = subprocess.run([sys.executable, LESSONS / "pictures.py", *words], capture_output=True, text=True)
    assert done.returncode == status and "python lessons/pictures.py" in done.stdout + done.stderr
    assert path.stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_picture_of_the_readme_is_made_by_one_command(tmp_path):
    made = runpy.run_path(str(LESSONS / "pictures.py"))["strip"]()
    assert made.get_axes()[0].images[0].get_array().shape[:2] == (4 * 132 + 4, 6 * 132 + 4)


# %% Starting and ending


def test_a_port_in_use_gives_way_to_the_next_free_one(networks):
    one = Board(*networks, port=0)
    other = Board(*networks, port=one.server_port)
    assert one.server_port < other.server_port <= one.server_port + server.PORTS_TO_TRY
    for board in (one, other):
        board.end()


def test_no_free_port_is_one_sentence(networks, monkeypatch):
    one = Board(*networks)
    monkeypatch.setattr(server, "PORTS_TO_TRY", 1)
    with pytest.raises(Problem, match="--port"):
        Board(*networks, port=one.server_port)
    one.end()


@pytest.mark.parametrize("change, says", [
    (lambda nets: {"edge": nets["palette"]}, "the ControlNet for 'edge' takes conditions of 3 channels"),
    (lambda nets: {"canny": nets["edge"]}, "are 'canny'; give a dictionary with some of the names edge, palette, pose"),
    (lambda nets: [nets["edge"]], "are a list"), (lambda nets: {"edge": None}, "the network of a control is a NoneType")])
def test_a_board_that_could_draw_nothing_does_not_start(networks, change, says):
    """Each stroke was refused later, or ended in words of torch."""
    base, nets = networks
    with pytest.raises(Problem, match=says):
        Board(base, change(nets))
    with pytest.raises(Problem, match="give a UNet"):
        Board(nets["edge"], nets)


def test_the_board_ends_at_once_while_it_computes(networks):
    board = Board(*networks)
    thread = threading.Thread(target=board.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{board.server_port}/pictures"
    body = json.dumps({"strokes": [PEN], "steps": 100}).encode()
    answer = urllib.request.urlopen(urllib.request.Request(url, body, {"X-Token": board.token}), timeout=30)
    answer.readline()
    board.shutdown()
    start = time.monotonic()
    board.end()
    assert time.monotonic() - start < 5
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("words, says", [
    (["--prompt", "pink star"], '"pink"'),
    (["--edge", "nowhere.png"], "does not exist"),
    (["--edge-weights", "nowhere.pt"], "nowhere.pt does not exist"),
])
def test_the_command_reports_a_mistake_in_one_sentence(words, says, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(Problem, match=says) as problem:
        main(["board", *words])
    assert "\n" not in str(problem.value)


@pytest.fixture
def started(networks, monkeypatch):
    """A function that runs the board command, without serving, and returns its board."""
    boards = []

    def serve(board):
        boards.append(board)
        raise KeyboardInterrupt

    def start(*words):
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setattr(Board, "serve_forever", serve)
        monkeypatch.setattr(command, "load_base", lambda path: networks[0])
        monkeypatch.setattr(command, "load_control", lambda kind, *_: networks[1][kind])
        monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
        main(["board", *words])
        return boards[-1]

    return start


def test_the_command_starts_with_a_file_and_ends_with_ctrl_c(started, tmp_path, capsys):
    drawing(Asked((stroke(),))).save(tmp_path / "drawing.png")
    board = started("--edge", str(tmp_path / "drawing.png"), "--prompt", "red", "--seed", "5", "--port", "0",
                    "--no-browser", "--pose-weights", "pose.pt")
    assert (board.start.prompt, board.start.seed, board.options) == ("red", 5, ["--pose-weights", "pose.pt"])
    assert edge_map(board.start).sum() > 80
    printed = capsys.readouterr().out
    assert board.address in printed and "The board has ended." in printed


def test_the_command_opens_the_browser_or_explains_how_to_reach_it(started, monkeypatch, capsys):
    opened = threading.Event()
    monkeypatch.setattr(command.webbrowser, "open", lambda address: opened.set())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    started("--port", "0")
    assert opened.wait(5)
    monkeypatch.delenv("DISPLAY")
    board = started("--port", "0")
    assert f"ssh -L {board.server_port}:127.0.0.1:{board.server_port}" in capsys.readouterr().out


def test_the_command_says_that_a_port_is_in_use(started, running, capsys):
    board = started("--port", str(running.server_port), "--no-browser")
    assert f"is in use, so the board takes port {board.server_port}" in capsys.readouterr().out


def test_a_codespace_calls_the_board_by_its_own_name(started, monkeypatch):
    monkeypatch.setenv("CODESPACE_NAME", "fluffy")
    board = started("--port", "0", "--no-browser")
    assert board.hosts == {"127.0.0.1", "localhost", f"fluffy-{board.server_port}.app.github.dev"}


# %% Notebooks


def test_outside_of_a_notebook_one_sentence_says_what_to_do(networks):
    with pytest.raises(Problem, match="python -m minicontrolnet board"):
        show_board(*networks)


@pytest.mark.parametrize("hub, proxy, source", [
    (None, False, r"http://127\.0\.0\.1:\d+/\?token=.+"),
    (None, True, r"/proxy/\d+/\?token=.+"),
    ("/user/ada/", False, r"/user/ada/proxy/\d+/\?token=.+"),
])
def test_a_notebook_shows_the_page(networks, monkeypatch, capsys, hub, proxy, source):
    shown = []
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=True)
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.IFrame = lambda *values: values
    ipython.display.display = shown.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    monkeypatch.setattr(Board, "serve_forever", lambda board: None)
    if hub:
        monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", hub)
    show_board(*networks, proxy=proxy)
    (address, _, height), = shown
    assert re.fullmatch(source, address) and height > 400 and "If no page appears" in capsys.readouterr().out


def test_behind_a_proxy_any_name_is_fine_but_the_token_is_needed(networks):
    board = Board(*networks, any_host=True)
    thread = threading.Thread(target=board.serve_forever, daemon=True)
    thread.start()
    request = urllib.request.Request(board.address, headers={"Host": "colab.example"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    request = urllib.request.Request(board.address + "x", headers={"Host": "colab.example"})
    assert refused(urllib.request.urlopen, request, timeout=30)[0] == 403
    board.shutdown()
    board.end()


def circle(x, y, radius):
    turns = [i * math.pi / 20 for i in range(41)]
    return Stroke(tuple((x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns))


@pytest.mark.parametrize("strokes, told", [
    ([circle(0.8, 0.2, 0.06)], "smaller than the shapes"),
    ([circle(0.28, 0.5, 0.15), circle(0.72, 0.5, 0.15)], "Draw a single outline"),
    ([circle(0.5, 0.5, 0.25)], "")])
def test_a_tiny_drawing_and_two_drawings_get_advice(strokes, told):
    asked = Asked(strokes=tuple(strokes))
    said = advice(asked, see(asked))
    assert told in said and bool(said) == bool(told)


def test_lines_beside_the_outline_get_advice():
    """They come with a traced screenshot, whose window has borders."""
    border = Stroke(((0.05, 0.02), (0.95, 0.02), (0.95, 0.9)))
    asked = Asked(strokes=(circle(0.45, 0.55, 0.22), border))
    assert "not part of the closed outline" in advice(asked, see(asked))


def test_a_traced_file_with_a_lost_part_is_told():
    """A drawing on two papers, of which one part is inverted."""
    picture = Image.new("L", (512, 512), 235)
    pen = ImageDraw.Draw(picture)
    pen.rectangle([100, 100, 412, 412], outline=20, width=8)
    picture.paste(ImageOps.invert(picture.crop((256, 0, 512, 512))), (256, 0))
    file = io.BytesIO()
    picture.save(file, "PNG")
    _, said = server.edges_of_file(file.getvalue(), "two papers.png", "drawing")
    assert "a part of the drawing is inverted" in said


def test_a_network_under_the_name_of_another_condition_is_refused(shipped):
    with pytest.raises(Problem, match="is one for 'edge'"):
        server._check_networks(shipped.base, {"pose": shipped.controls["edge"]})
