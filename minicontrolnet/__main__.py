"""python -m minicontrolnet: the commands, which are in run/cli.py. python minicontrolnet starts them as well."""

import sys
from pathlib import Path

if not __package__:  # started by the folder's name, and Python then searches in this folder and not beside it
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from minicontrolnet.run.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
