"""The board's server: one page, and the pictures that follow what is drawn on it.

It listens on 127.0.0.1 only. A random token in the address guards every request, so no other
program, user or web page can use it without having seen the address. If a request is wrong, the
answer is a sentence, and the server goes on.
"""

import base64
import json
import os
import secrets
import socketserver
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import torch

from ...conditions import CHANNELS
from ...controlnet import ControlNet
from ...errors import Problem
from ...sampling import sample_steps
from ...shapes import COLOURS, DARK, SHAPES, SIZE
from ...unet import UNet
from ..drawings import edges_from_picture, hint_about_papers, is_line_drawing, read_image, trace
from .asked import FINAL, Asked, read_asked
from .pictures import messages
from .saved import save
from .sheet import paper_bits
from .turns import Turns

PAGE = Path(__file__).with_name("board.html")
LESSONS = Path(__file__).parents[3] / "lessons"
LARGEST_REQUEST, LARGEST_FILE = 2_000_000, 30_000_000  # bytes
PORTS_TO_TRY = 20
HERE = {"127.0.0.1", "localhost"}
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # a link must not give the token away
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
                               " img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'",
}


class Board(ThreadingHTTPServer):
    """A server for one base and its ControlNets. Its page is at ``address``.

    start: the prompt, the seed and the paper with which a page begins.
    port: the first port to try, or 0 for any free port.
    options: words that the saved command needs, such as the names of other weights.
    any_host: answer to any name, behind a proxy; the token alone then guards the board.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name != "nt"  # on Windows it would share the port with another program
    request_queue_size = 64

    def __init__(self, base: UNet, nets: dict[str, ControlNet], start: Asked = Asked(), port: int = 0,
                 options: Sequence[str] = (), any_host: bool = False):
        _check_networks(base, nets)
        self.base, self.nets = base, nets
        self.start, self.options = start, options
        self.hosts = None if any_host else set(HERE)  # names by which a browser may call the board
        self.token = secrets.token_urlsafe(16)
        self.ended = False
        self.turns = Turns()
        self.worker = ThreadPoolExecutor(1)  # all networks run in this thread, one step after another
        self._bind(port)

    def _bind(self, port: int) -> None:
        """Listen on the port, or on the next free one."""
        if not isinstance(port, int) or not 0 <= port < 65536:
            raise Problem(f"the port is {port!r}; give a whole number from 0 to 65535, where 0 is any free port")
        ports = range(port, min(port + PORTS_TO_TRY, 65536)) if port else [0]
        for here in ports:
            with suppress(OSError):
                return super().__init__(("127.0.0.1", here), Handler)
        raise Problem(f"the ports {ports[0]} to {ports[-1]} are all in use; give another one by --port,"
                      " or --port 0 for any free port")

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would ask the name server, which can take seconds
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/?token={self.token}"

    def end(self) -> None:
        """Stop after the present step."""
        self.ended = True
        self.worker.shutdown(wait=True, cancel_futures=True)
        self.turns.wait_for_all(seconds=2)
        self.server_close()
        time.sleep(0.1)  # torch's own clean-up of these threads would crash a Python that has already begun to end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A page that goes away is no error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def page(self) -> bytes:
        """The page, with what it has to know about the toy world and where it starts."""
        start = {"prompt": self.start.prompt, "seed": self.start.seed, "paper": _base64(self.start.paper),
                 "colours": {name: _css(rgb) for name, rgb in COLOURS.items()},
                 "dark": {name: _css([DARK * value for value in rgb]) for name, rgb in COLOURS.items()},
                 "shapes": list(SHAPES), "kinds": list(self.nets), "final": FINAL,
                 "lessons": {path.stem[:2]: path.name for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))}}
        return PAGE.read_text(encoding="utf-8").replace("{START}", json.dumps(start).replace("<", r"\u003c")).encode()

    def compute(self, function: Callable, *values: Any) -> Any:
        """Call a function in the one thread for networks."""
        try:
            return self.worker.submit(function, *values).result()
        except (RuntimeError, CancelledError):
            if self.ended:
                raise ConnectionAbortedError("the board has ended") from None
            raise

    def pictures(self, asked: Asked, page: str) -> Iterator[dict]:
        """The messages for a page, until they are complete or the page has drawn something newer."""
        steps = messages(asked, self.base, self.nets)  # a generator: nothing is computed before its first step
        ticket = self.turns.begin(page)
        if ticket is None:
            return
        try:
            while (message := self.compute(next, steps, None)) is not None:
                yield message
                if not self.turns.is_newest(page, ticket):
                    return
        finally:
            steps.close()  # frees its tensors here and now
            self.turns.end(page, ticket)


def _check_networks(base: UNet, nets: dict[str, ControlNet]) -> None:
    """Raise Problem unless the board can use these networks. It draws only the conditions that it knows."""
    if not isinstance(nets, Mapping) or not set(nets) <= set(CHANNELS):
        found = ", ".join(map(repr, nets)) if isinstance(nets, Mapping) else f"a {type(nets).__name__}"
        raise Problem(f"the ControlNets of the board are {found}; give a dictionary with some of the names"
                      f" {', '.join(CHANNELS)}, such as {{\"edge\": control}}")
    for kind, net in nets.items():
        channels = getattr(net, "c_condition", CHANNELS[kind])  # your own network need not have this attribute
        if channels != CHANNELS[kind]:
            raise Problem(f"the ControlNet for {kind!r} takes conditions of {channels} channels, but the board's have"
                          f" {CHANNELS[kind]}; give it under the name of the condition that it was trained on")
        known = getattr(net, "kind", None) or kind
        if known != kind:
            raise Problem(f"the ControlNet for {kind!r} is one for {known!r}; give it under the name of the condition"
                          " that it was trained on")
    blank = [(net, torch.zeros(1, CHANNELS[kind], SIZE, SIZE)) for kind, net in nets.items()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of course these conditions show nothing
        sample_steps(base, "", torch.zeros(1, 3, SIZE, SIZE), blank)  # checks the networks, and computes nothing yet


class Refused(Exception):
    """A request that is answered by a status and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: Board
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each message leaves at once
    timeout = 60  # seconds without a byte, after which a connection is closed

    def do_GET(self) -> None:
        self.answer({"/": self.send_page}, "token" in self.query and self.query["token"][0])

    def do_POST(self) -> None:
        routes = {"/pictures": self.send_pictures, "/trace": self.send_trace, "/save": self.send_saved}
        self.answer(routes, self.headers.get("X-Token"))

    def answer(self, routes: dict[str, Callable[[], None]], token: Any) -> None:
        """Check who asks, and then call the route's function. Every failure becomes a sentence."""
        self.begun = False  # whether a part of the answer has left
        try:
            self.check_caller(token)
            path = urlsplit(self.path).path
            if path.startswith("/lesson/") and self.command == "GET":
                return self.send_lesson(path.removeprefix("/lesson/"))
            if path not in routes:
                raise Refused(404, "The board has no such page; open the address that the terminal shows.")
            routes[path]()
        except Refused as refused:
            self.send_sentence(refused.status, str(refused))
        except Problem as problem:
            self.send_sentence(400, str(problem))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            traceback.print_exception(error)
            self.send_sentence(500, f"The board made a mistake ({type(error).__name__}); the terminal shows where.")

    def check_caller(self, token: Any) -> None:
        """Refuse requests without the token, and pages of other hosts."""
        origin = self.headers.get("Origin")
        hosts = self.server.hosts
        if hosts is not None:
            if _host(f"//{self.headers.get('Host', '')}") not in hosts:
                raise Refused(403, "The board answers to the name 127.0.0.1 only.")
            if origin is not None and _host(origin) not in hosts:
                raise Refused(403, "Another web page may not use the board.")
        if not isinstance(token, str) or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            raise Refused(403, "The token is missing or wrong; open the whole address that the terminal shows.")

    # %% What is asked

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def body(self, largest: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(411, "The request does not say how long it is.")
        if int(length) > largest:
            raise Refused(413, f"The request is larger than {largest // 10**6} million bytes, which is the limit.")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise Refused(400, "The request ended before it was complete.")
        return data

    def asked(self) -> Asked:
        try:
            sent = json.loads(self.body(LARGEST_REQUEST))
        except (ValueError, RecursionError):
            raise Refused(400, "The request is not JSON; reload the page of the board.") from None
        return read_asked(sent)

    # %% The answers

    def send_page(self) -> None:
        self.send(200, "text/html; charset=utf-8", self.server.page())

    def send_lesson(self, name: str) -> None:
        """A lesson as plain text, for the links in the explanations."""
        if name not in {path.name for path in LESSONS.glob("[0-9][0-9]_*.py")}:
            raise Refused(404, "There is no such lesson.")
        self.send(200, "text/plain; charset=utf-8", (LESSONS / name).read_bytes())

    def send_pictures(self) -> None:
        """A stream of messages, each one line of JSON."""
        asked = self.asked()
        page = self.headers.get("X-Page", "")[:64]
        steps = self.server.pictures(asked, page)
        first = next(steps, {"cancelled": True})  # a Problem here is still an answer of its own
        self.start_answer(200, "application/x-ndjson", {"Transfer-Encoding": "chunked"})
        try:
            self.send_chunk(first)
            for message in steps:
                self.send_chunk(message)
        except Problem as problem:
            self.send_chunk({"problem": str(problem)})
        finally:
            steps.close()
        self.wfile.write(b"0\r\n\r\n")

    def send_chunk(self, message: dict) -> None:
        line = json.dumps(message).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def send_trace(self) -> None:
        """A dropped file as an edge map: a line drawing is traced, a picture's edges are detected."""
        name = unquote(self.headers.get("X-Name", "the file"))[:200]
        way = self.query.get("as", ["drawing"])[0]
        paper, advice = self.server.compute(edges_of_file, self.body(LARGEST_FILE), name, way)
        self.send(200, "application/json", json.dumps({"paper": paper, "advice": advice}).encode())

    def send_saved(self) -> None:
        asked = self.asked()
        name, archive = self.server.compute(save, asked, self.server.base, self.server.nets, self.server.options)
        self.send(200, "application/zip", archive, {"Content-Disposition": f'attachment; filename="{name}.zip"'})

    # %% HTTP

    def send(self, status: int, kind: str, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.start_answer(status, kind, {"Content-Length": str(len(data)), **(headers or {})})
        self.wfile.write(data)

    def start_answer(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.begun = True
        self.send_response(status)
        for name, value in {"Content-Type": kind, **HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def send_sentence(self, status: int, sentence: str) -> None:
        """End a request that failed. The rest of its body is read, or the browser would miss the answer."""
        self.close_connection = True
        if self.begun:
            return
        with suppress(OSError):
            data = json.dumps({"problem": sentence}).encode()
            self.send(status, "application/json", data, {"Connection": "close"})
            self.connection.settimeout(0.2)
            for _ in range(LARGEST_FILE // 2**16):
                if not self.rfile.read1(2**16):
                    break

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that http.server itself refuses: it is not HTTP, or its method is unknown here."""
        self.begun = False
        self.request_version = getattr(self, "request_version", "HTTP/1.1")
        self.send_sentence(code, f"The board does not understand this request ({message or code}).")

    def log_message(self, *_: Any) -> None:
        """The terminal stays quiet."""


def edges_of_file(data: bytes, name: str, way: str) -> tuple[str, str]:
    """The edge map of a file's bytes as the page's paper, and a sentence about what was done."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        try:
            if way == "picture":
                edges = edges_from_picture(path)
                lines = " It looks like a line drawing, so open it as one." if is_line_drawing(path, edges) else ""
                return _base64(paper_bits(edges)), f"These are the edges detected in {name}.{lines}"
            colours, opacity = read_image(path)
            edges, zoom = trace(colours, opacity, name=name)
            lost, *_ = hint_about_papers(colours, opacity).split(";")  # the rest is advice for the command
        except Problem as problem:
            raise Problem(str(problem).replace(str(path), name)) from problem
    scaled = "" if zoom == 1 else f", scaled by {zoom:.2f} to the size of the shapes that the networks know"
    lost = f" But {lost}." if lost else ""
    return _base64(paper_bits(edges)), f"This is the line that was traced in {name}{scaled}.{lost}"


def _host(address: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(address).hostname
    return None


def _css(rgb: Sequence[float]) -> str:
    return "rgb({:.0f} {:.0f} {:.0f})".format(*(255 * value for value in rgb))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
