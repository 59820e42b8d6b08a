"""The board: draw in a browser, and pictures follow while you draw.

The page is board.html. It sends requests (``asked``) to the ``server``. ``sheet`` turns a drawing into
conditions, and ``pictures`` samples from them. ``saved`` makes the download. ``notebook`` shows the page
in Jupyter or Colab.
"""

from .asked import FINAL, Asked, Stroke
from .pictures import follow
from .notebook import show
from .server import Board
from .sheet import paper_bits, see
