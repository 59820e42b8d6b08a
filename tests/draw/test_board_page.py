"""The board's page in a headless Chromium, driven as a person would: pip install playwright, and Debian's chromium."""

import base64
import io
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from conftest import ROOT
from minicontrolnet import mask_iou, mask_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not (CHROMIUM and sync_playwright), reason="the board's page is tested where chromium and pip install playwright are")]
SQUARE = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7), (0.3, 0.3)]


@pytest.fixture(scope="module")
def program():
    """The command, as a process of its own; yields it and its address."""
    words = [sys.executable, "-m", "minicontrolnet", "board", "--no-browser", "--port", "0", "--prompt", "red square on blue"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    address = re.search(r"http://\S+", process.stdout.readline())[0]
    yield process, address
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Person:
    """A page, and what somebody does with it."""

    def __init__(self, browser, address, **options):
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 720}, **options})
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self.note)
        self.page.goto(address)
        self.wait()

    def note(self, line):
        """Keep what the browser complains about, except for answers that the page shows as a sentence."""
        if line.type == "error" and "status of 400" not in line.text:
            self.errors.append(line.text)

    def wait(self, seconds=60):
        """Until the pictures are final."""
        end = time.monotonic() + seconds
        while not self.page.evaluate("flying === null && wanted === null && pointer === null"):
            assert time.monotonic() < end, "no final pictures"
            time.sleep(0.02)

    def at(self, point, selector="#sheet"):
        box = self.page.locator(selector).bounding_box()
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

    def draw(self, points, button="left", lift=True):
        self.page.mouse.move(*self.at(points[0]))
        self.page.mouse.down(button=button)
        for one, other in zip(points, points[1:]):
            for i in range(1, 11):
                self.page.mouse.move(*self.at([a + (b - a) * i / 10 for a, b in zip(one, other)]))
        if lift:
            self.page.mouse.up(button=button)
            self.wait()

    def shown(self, selector, n=1):
        """The pixels (n, 3, h, w) of canvases."""
        images = []
        for i in range(n):
            url = self.page.evaluate("([s, i]) => document.querySelectorAll(s)[i].toDataURL()", [selector, i])
            with_alpha = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
            images.append(pil_to_tensor(with_alpha.convert("RGB")) / 255)
        return torch.stack(images)

    def pictures(self):
        return self.shown("#pictures canvas", 4)

    def said(self):
        return self.page.locator("#message").inner_text()


@pytest.fixture
def person(browser, program):
    person = Person(browser, program[1])
    yield person
    assert person.errors == []
    person.page.close()


def iou(pictures):
    mask = torch.zeros(4, 1, 64, 64)
    mask[..., 19:45, 19:45] = 1
    return mask_iou(mask_of(pictures), mask).min()


def test_pictures_follow_while_a_square_is_drawn(person):
    before = person.pictures()
    person.draw(SQUARE[:4], lift=False)
    end = time.monotonic() + 20
    while torch.equal(person.pictures(), before) and time.monotonic() < end:
        time.sleep(0.05)
    assert not torch.equal(person.pictures(), before), "before the pen is lifted"
    person.draw(SQUARE[3:])
    assert iou(person.pictures()) > 0.8
    assert person.shown("#edges").sum() == 3 * 100
    strip = person.shown("#strip canvas", 18)
    assert strip[0].std() > 0.2 and torch.equal(strip[17], person.pictures()[0]), "from noise to picture"
    assert person.page.locator("#invite").is_hidden()
    assert person.shown("#controls canvas", 3).std() > 0.1, "heat maps"


def test_all_steps_are_made_when_the_pen_rests(person):
    person.draw(SQUARE, lift=False)
    end = time.monotonic() + 20
    while person.page.locator("#progress").evaluate("one => one.value") < 25 and time.monotonic() < end:
        time.sleep(0.05)
    assert iou(person.pictures()) > 0.8 and person.page.evaluate("pointer !== null")
    person.page.mouse.up()
    person.wait()


def test_a_reload_keeps_the_drawing(person):
    person.draw(SQUARE)
    pictures = person.pictures()
    person.page.reload()
    person.wait()
    assert torch.equal(person.pictures(), pictures) and person.page.locator("#invite").is_hidden()


def test_undo_redo_clear_and_the_eraser(person):
    empty = person.shown("#sheet")
    person.draw(SQUARE)
    square, pictures = person.shown("#sheet"), person.pictures()
    person.draw([(0.5, 0.25), (0.5, 0.35)], button="right")
    assert person.shown("#edges").sum() < 3 * 98
    person.page.keyboard.press("e")
    person.draw([(0.25, 0.5), (0.35, 0.5)])
    person.page.keyboard.press("u")
    person.page.keyboard.press("Control+z")
    person.wait()
    assert torch.equal(person.shown("#sheet"), square) and torch.equal(person.pictures(), pictures)
    person.page.keyboard.press("c")
    person.wait()
    assert torch.equal(person.shown("#sheet"), empty)
    person.page.locator("#undo").click()
    person.page.locator("#undo").click()
    person.page.locator("#redo").click()
    person.wait()
    assert torch.equal(person.shown("#sheet"), square) and torch.equal(person.pictures(), pictures)


def test_words_are_typed_or_chosen(person):
    pictures = person.pictures()
    person.page.locator("#prompt").fill("pink star")
    person.page.keyboard.press("Enter")
    person.wait()
    assert '"pink"' in person.said() and person.page.locator("#prompt").get_attribute("aria-invalid") == "true"
    assert torch.equal(person.pictures(), pictures)
    person.page.locator("#prompt").fill("star")
    person.page.keyboard.press("Enter")
    person.page.locator("#colours [data-name=green]").click()
    person.page.locator("#backgrounds [data-name=red]").click()
    assert person.page.locator("#prompt").input_value() == "green star on red"
    person.wait()
    assert person.said() == "" and person.pictures()[:, 1].max() > person.pictures()[:, 2].max()
    person.page.locator("#prompt").focus()
    person.page.keyboard.type("uce")
    assert person.page.locator("#eraser").get_attribute("aria-pressed") == "false", "letters of a prompt are no shortcuts"


def test_sliders_change_the_pictures(person):
    person.draw(SQUARE)
    controlled = person.pictures()
    for i in range(13):
        person.page.locator("#controls input").nth(i).focus()
        person.page.keyboard.press("Home")
    person.wait()
    bare = person.pictures()
    assert not torch.equal(bare, controlled) and person.shown("#controls canvas", 1).max() < 0.05
    person.page.locator("[data-preset=all]").click()
    person.wait()
    assert torch.equal(person.pictures(), controlled)
    person.page.locator("[data-name=conditioning_scale]").focus()
    person.page.keyboard.press("Home")
    person.wait()
    assert torch.equal(person.pictures(), bare)


def test_palette_pose_and_region(person):
    before = person.pictures()
    person.page.locator("#hues [data-name=green]").click()
    person.page.locator("#cells button").nth(5).click()
    person.wait()
    painted = person.pictures()
    assert not torch.equal(painted, before)
    person.page.mouse.move(*person.at((0.5, 0.6), "#pose"))
    person.page.mouse.down()
    person.page.mouse.move(*person.at((0.6, 0.3), "#pose"))
    person.page.mouse.up()
    person.wait()
    posed = person.pictures()
    assert not torch.equal(posed, painted)
    person.page.keyboard.press("r")
    person.draw([(0.1, 0.1), (0.1, 0.9)])
    assert not torch.equal(person.pictures(), posed)
    for _ in range(3):
        person.page.keyboard.press("u")
    person.wait()
    assert torch.equal(person.pictures(), before)


def test_save_downloads_an_archive(person):
    person.draw(SQUARE)
    with person.page.expect_download() as download:
        person.page.keyboard.press("s")
    archive = zipfile.ZipFile(download.value.path())
    picture, = [name for name in archive.namelist() if name.endswith("pictures.png")]
    saved = pil_to_tensor(Image.open(io.BytesIO(archive.read(picture)))) / 255
    assert torch.equal(torch.stack(saved.split(64, 2)), person.pictures())


def test_a_dropped_file_becomes_the_drawing(person, tmp_path):
    image = Image.new("RGB", (300, 300), "white")
    image.paste("black", (90, 90, 210, 210))
    image.paste("white", (95, 95, 205, 205))
    image.save(tmp_path / "square.png")
    data = base64.b64encode((tmp_path / "square.png").read_bytes()).decode()
    person.page.evaluate("""data => {
        const files = new DataTransfer();
        files.items.add(new File([bytesOf(data)], "square.png"));
        for (const kind of ["dragenter", "drop"]) {
            const event = new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true });
            document.querySelector("#drop [data-as=drawing]").dispatchEvent(event);
        }}""", data)
    person.page.wait_for_selector("#message:has-text('square.png')")
    person.wait()
    assert iou(person.pictures()) > 0.7 and person.page.locator("#drop").is_hidden()


def test_a_file_that_is_no_picture_gets_a_sentence(person, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    person.page.set_input_files("#file", tmp_path / "notes.txt")
    person.page.wait_for_selector("#message.bad")
    assert "notes.txt" in person.said()


def test_a_finger_draws_too(browser, program):
    person = Person(browser, program[1], viewport={"width": 844, "height": 390}, has_touch=True)
    line = person.page.context.new_cdp_session(person.page)
    for kind, point in [("touchStart", SQUARE[0]), *[("touchMove", point) for point in SQUARE[1:]], ("touchEnd", None)]:
        x, y = person.at(point) if point else (0, 0)
        line.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}] if point else []})
    person.wait()
    assert iou(person.pictures()) > 0.8 and person.errors == []
    person.page.close()


def test_scribbling_makes_no_queue(person):
    """The last pictures come as soon after the pen rests as after a single stroke."""
    person.page.mouse.move(*person.at((0.5, 0.5)))
    person.page.mouse.down()
    end, i = time.monotonic() + 8, 0
    while time.monotonic() < end:
        i += 1
        person.page.mouse.move(*person.at((0.2 + 0.6 * (i * 0.037 % 1), 0.2 + 0.6 * (i * 0.023 % 1))))
    person.page.mouse.up()
    start = time.monotonic()
    person.wait()
    after_scribbling = time.monotonic() - start
    person.page.keyboard.press("c")
    person.wait()
    start = time.monotonic()
    person.draw(SQUARE)
    assert after_scribbling < 3 * (time.monotonic() - start)


def test_two_tabs_draw_at_the_same_time(person, browser, program):
    other = Person(browser, program[1])
    person.draw(SQUARE, lift=False)
    other.draw(SQUARE)
    person.page.mouse.up()
    person.wait()
    assert torch.equal(person.pictures(), other.pictures()) and other.errors == []
    other.page.close()


@pytest.mark.parametrize("width, height", [(1280, 720), (1920, 1080), (844, 390), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_everything_has_a_name(browser, program, width, height, scheme):
    person = Person(browser, program[1], viewport={"width": width, "height": height}, color_scheme=scheme)
    assert person.page.evaluate("document.documentElement.scrollWidth") <= width
    if width >= 1280:
        assert person.page.evaluate("document.documentElement.scrollHeight") <= height, "all in one view"
    for selector in ("#sheet", "#pictures"):
        box = person.page.locator(selector).bounding_box()
        assert box["y"] + box["height"] <= height * 1.02 or height > width, "drawing and pictures without scrolling"
    unnamed = person.page.evaluate("""[...document.querySelectorAll('button, input:not([hidden]), canvas:not(.x)')].filter(one =>
        !(one.ariaLabel || one.textContent.trim() || one.labels?.length || one.closest('[aria-label][role=img], button, #strip')))
        .map(one => one.outerHTML)""")
    assert unnamed == [] and person.errors == []
    person.page.close()


def test_ctrl_c_ends_the_program_at_once_and_the_page_says_so(browser, program):
    """The last test: the program is gone after it."""
    process, address = program
    person = Person(browser, address)
    person.draw(SQUARE, lift=False)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0 and time.monotonic() - start < 10  # on a busy machine; 1 s on an idle one
    person.page.mouse.up()
    person.page.wait_for_selector("#message.bad")
    assert "ended" in person.said()
    person.page.close()
