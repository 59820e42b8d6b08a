"""The board: draw in a browser, and pictures follow while you draw.

``asked`` is what the page asks for, ``sheet`` what the ControlNets see of it, ``pictures`` the pictures that follow,
``saved`` the download, ``server`` the page's server, and ``notebook`` shows the page in a notebook.
"""

from .asked import FINAL, Asked, Stroke
from .pictures import follow
from .notebook import show
from .server import Board
from .sheet import paper_bits, see
