"""The board inside Jupyter or Colab."""

import os
import sys
import threading

from ...errors import Problem
from .server import Board


def show(board: Board, height: int = 820, proxy: bool = False) -> None:
    """Serve a board in the background and show it in the notebook. Raises Problem outside of one.

    proxy: reach it through jupyter-server-proxy, for a Jupyter that runs on another machine.
    """
    if not in_notebook():
        raise Problem("show_board works in Jupyter and in Colab only; elsewhere run python -m minicontrolnet board")
    threading.Thread(target=board.serve_forever, daemon=True).start()
    path = f"/?token={board.token}"
    if "google.colab" in sys.modules:
        from google.colab import output

        output.serve_kernel_port_as_iframe(board.server_port, path=path, height=height)
        return
    from IPython.display import IFrame, display

    hub = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
    if hub or proxy:
        display(IFrame(f"{hub or '/'}proxy/{board.server_port}{path}", "100%", height))
        print("If no page appears, run pip install jupyter-server-proxy where Jupyter runs, and restart Jupyter.")
    else:
        display(IFrame(board.address, "100%", height))
        print("If no page appears, Jupyter runs on another machine: call show_board(proxy=True).")


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    if "google.colab" in sys.modules:
        return True
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
