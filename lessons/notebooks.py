"""Make a notebook of every lesson: python lessons/notebooks.py [--out DIR] [NN ...]

Its first cell finds the project, or fetches it on Colab; the second one holds the
options. The others are the lesson's own cells, word by word. Lessons are changed in
their scripts; a notebook is made again. The one that was there becomes a
backup if it differs, for example by your changes.
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from lesson import LESSONS

from minicontrolnet.errors import Problem
from minicontrolnet.run.files import write_and_keep
from minicontrolnet.run.options import any_path, read_words, report_problems

SCRIPTS = {path.stem[:2]: path for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))}
Cell = tuple[str, str]  # "markdown" or "code", and its text

SETUP = '''\
# Finds the project, from any folder of a clone. Elsewhere, as on Colab, it is fetched.
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""  # <- the project's address, as "git clone" takes it

here = Path.cwd()
clones = [place for place in (here, *here.parents, here / "minicontrolnet")
          if (place / "lessons" / "lesson" / "page.py").is_file()]
if not clones and not REPOSITORY:
    raise FileNotFoundError(
        f"{here} is in no clone of minicontrolnet: open this notebook in one, or write"
        " the project's address behind REPOSITORY = in this cell, and run it again")
if not clones:
    clones = [here / "minicontrolnet"]
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, clones[0]], check=True)
os.chdir(clones[0])  # outputs/ is made here
needed = [line.split(">=")[0] for line in open("requirements.txt") if line.strip()]
if not all(map(importlib.util.find_spec, needed)):  # pip lets be what is there already
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet",
                    "-r", "requirements.txt"], check=True)
if str(Path("lessons").resolve()) not in sys.path:
    sys.path.insert(0, str(Path("lessons").resolve()))
'''

OPTIONS = '''\
# The lesson's options, as in a terminal: "--quick", "--seed 1 --answer b", for example.
# After a change run this cell and all below it again.
options_of_this_lesson = ""

sys.argv = ["lessons/{name}.py", *options_of_this_lesson.split()]
'''


def cells_of(script: str) -> list[Cell]:
    """The cells of a script in percent format, in their order, without empty ones."""
    cells = []
    parts = re.split(r"^# %%(.*)\n", "# %%\n" + script, flags=re.MULTILINE)[1:]
    for heading, text in zip(parts[::2], parts[1::2]):
        kind = "markdown" if heading.strip() == "[markdown]" else "code"
        if kind == "markdown":
            text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        if text.strip():
            cells.append((kind, text.strip("\n")))
    return cells


def notebook(path: Path) -> dict:
    """A lesson's notebook, as nbformat 4.5 wants it: nothing has been run in it."""
    first = [("code", SETUP.strip()), ("code", OPTIONS.format(name=path.stem).strip())]
    own = cells_of(path.read_text(encoding="utf-8"))
    cells = []
    for i, (kind, text) in enumerate(first + own):
        cell = {"cell_type": kind, "id": f"{path.stem}-{i}", "metadata": {},
                "source": text.splitlines(keepends=True)}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "nbformat": 4, "nbformat_minor": 5,
            "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}}}


def write_notebook(path: Path, content: bytes) -> None:
    """Write a notebook and print its name. Another one in its place, such as one that was run, becomes a backup."""
    write_and_keep(path, content)
    print(path)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python lessons/notebooks.py",
                                     description="Make a notebook of every lesson.")
    parser.add_argument("--out", type=any_path, metavar="DIR",
                        default=LESSONS.parent / "outputs" / "notebooks")
    parser.add_argument("lessons", nargs="*", metavar="NN", help="such as 03; else all")
    args = read_words(parser, words)
    for number in args.lessons:
        if number not in SCRIPTS:
            there = ", ".join(SCRIPTS)
            raise Problem(f"there is no lesson {number!r}; there are {there}")
    for number in args.lessons or SCRIPTS:
        path = args.out / f"{SCRIPTS[number].stem}.ipynb"
        content = json.dumps(notebook(SCRIPTS[number]), indent=1, ensure_ascii=False)
        write_notebook(path, f"{content}\n".encode())


if __name__ == "__main__":
    report_problems()
    main()
