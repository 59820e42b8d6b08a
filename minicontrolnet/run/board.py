"""The board command: loads the weights, serves the page and opens the browser. Also the board in a notebook."""

import argparse
import os
import sys
import threading
import webbrowser

import torch

from ..conditions import CHANNELS
from ..controlnet import ControlNet
from ..shapes import tokenize
from ..unet import UNet
from .weights import load_base, load_control

PROMPT = "orange on blue"  # a newcomer's first pictures: two colours, and any shape


def board_command(args: argparse.Namespace) -> None:
    """Serve the board until Ctrl-C."""
    from ..draw.board import Asked, Board, paper_bits
    from ..draw.drawings import edges_from_drawing

    tokenize(args.prompt)  # a mistake in the prompt is reported before anything is loaded
    paper = paper_bits(edges_from_drawing(args.edge)) if args.edge else b""
    base = load_base(args.base_weights)
    nets = {kind: load_control(kind, base, getattr(args, f"{kind}_weights")) for kind in CHANNELS}
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # one core is left for the browser
    start = Asked(prompt=args.prompt, seed=args.seed, paper=paper)
    board = Board(base, nets, start, args.port, weight_options(args))
    board.hosts |= codespace_name(board.server_port)
    if args.port not in (0, board.server_port):
        print(f"Port {args.port} is in use, so the board takes port {board.server_port}.")
    print(f"The board is at {board.address}\nCtrl-C ends it.", flush=True)
    if not args.no_browser:
        open_browser(board)
    try:
        board.serve_forever()
    except KeyboardInterrupt:
        print("\nThe board has ended.")
    finally:
        board.end()


def open_browser(board) -> None:
    """Open the page, or explain how to reach it from another machine."""
    screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen:
        threading.Thread(target=webbrowser.open, args=[board.address], daemon=True).start()
    else:
        port = board.server_port
        print(f"This machine has no screen. On your own machine run ssh -L {port}:127.0.0.1:{port} with the name of"
              " this machine, and open the address there.", flush=True)


def weight_options(args: argparse.Namespace) -> list[str]:
    """The options of ``sample`` that name the same weights."""
    words = []
    for kind in ["base", *CHANNELS]:
        path = getattr(args, f"{kind}_weights")
        if path:
            words += [f"--{kind}-weights", str(path)]
    return words


def codespace_name(port: int) -> set[str]:
    """The name by which a browser calls this port of a GitHub Codespace; empty elsewhere."""
    name = os.environ.get("CODESPACE_NAME")
    domain = os.environ.get("GITHUB_CODESPACES_PORT_FORWARDING_DOMAIN", "app.github.dev")
    return {f"{name}-{port}.{domain}"} if name else set()


def show_board(base: UNet | None = None, nets: dict[str, ControlNet] | None = None, prompt: str = PROMPT,
               seed: int = 0, height: int = 820, proxy: bool = False) -> None:
    """Show the board inside a Jupyter or Colab notebook; by default with the shipped weights.

    base, nets: your own networks, such as ``{"edge": control}``.
    proxy: reach it through jupyter-server-proxy, for a Jupyter that runs on another machine.
    Raises Problem outside of a notebook.
    """
    from ..draw.board import Asked, Board, show

    base = load_base() if base is None else base
    nets = {kind: load_control(kind, base) for kind in CHANNELS} if nets is None else nets
    show(Board(base, nets, Asked(prompt=prompt, seed=seed), any_host=True), height, proxy)
