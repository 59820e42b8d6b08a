"""python -m minicontrolnet: the commands, which are in run/cli.py."""

from .run.cli import main

if __name__ == "__main__":
    main()
