"""Every lesson as a notebook: well formed, nothing lost, and its cells run."""

import ast
import importlib
import json
import re
import subprocess
import sys

import pytest

from conftest import LESSONS
from minicontrolnet import Problem

ROOT = LESSONS.parent
SCRIPTS = sorted(LESSONS.glob("[0-9][0-9]_*.py"))
RUN = ("03_zero_conv",)

# A kernel in short: all code cells in one namespace, each as it stands.
KERNEL = """import json, sys
namespace = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
"""


@pytest.fixture
def maker(tmp_path, monkeypatch):
    """lessons/notebooks.py as a module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(LESSONS))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield importlib.import_module("notebooks")
    for name in [name for name in sys.modules if name.split(".")[0] in ("notebooks", "lesson")]:
        del sys.modules[name]


@pytest.fixture
def made(maker, tmp_path, capsys):
    """Name -> notebook: those of all lessons, from their files."""
    maker.main(["--out", str(tmp_path / "made")])
    paths = sorted((tmp_path / "made").iterdir())
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def source(cells):
    return "\n".join("".join(cell["source"]) for cell in cells)


def test_every_lesson_becomes_a_notebook_of_the_format(made):
    """nbformat 4.5: its keys, no others; ids that are unique and of its letters; nothing was run."""
    assert list(made) == [path.stem for path in SCRIPTS]
    for book in made.values():
        assert set(book) == {"cells", "metadata", "nbformat", "nbformat_minor"}
        assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
        assert {"name", "display_name"} <= set(book["metadata"]["kernelspec"])
        assert book["metadata"]["language_info"]["name"] == "python"
        ids = [cell["id"] for cell in book["cells"]]
        assert len(set(ids)) == len(ids) > 6
        assert all(re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", id) for id in ids)
        for cell in book["cells"]:
            lines = cell["source"]
            assert lines and all(line.endswith("\n") and line.count("\n") == 1 for line in lines[:-1])
            assert lines[-1] and not lines[-1].endswith("\n")
            own = {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
            assert cell["cell_type"] in ("code", "markdown")
            assert cell == {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": {}, "source": lines} | own


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_nothing_of_a_lesson_is_lost(path, made):
    """Its code cells joined are the script to Python, and line by line; its prose stands between."""
    text, cells = path.read_text(encoding="utf-8"), made[path.stem]["cells"][2:]
    code, prose = ([cell for cell in cells if cell["cell_type"] == kind] for kind in ("code", "markdown"))
    assert ast.dump(ast.parse(source(code))) == ast.dump(ast.parse(text))
    comments = "\n".join(re.sub("^", "# ", "".join(cell["source"]), flags=re.M) for cell in prose)
    lines = lambda text: [line.rstrip() for line in text.splitlines() if line.strip() and line[:4] != "# %%"]
    assert sorted(lines(source(code)) + lines(comments)) == sorted(lines(text))
    assert cells[0]["cell_type"] == "markdown" and cells[0]["source"][0].startswith(f"# Lesson {path.stem[:2]}")
    assert all(ast.parse("".join(cell["source"])).body for cell in code)


def test_cells_of_the_percent_format(maker):
    """By a known answer: code before the first mark, a cell's title, an empty cell, lines of prose."""
    script = '"""Top."""\n\n# %% [markdown]\n# # A\n#\n# b # c\n\n# %% title\nx = "# %%"\n\n# %%\n\n# %%\ny = 1\n'
    assert maker.cells_of(script) == [("code", '"""Top."""'), ("markdown", "# A\n\nb # c"),
                                      ("code", 'x = "# %%"'), ("code", "y = 1")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_a_notebook_runs_from_a_folder_of_a_clone(name, made, tmp_path):
    """Cell by cell in a new process, with options set in their cell; outputs land where --out says."""
    text = json.dumps(made[name]).replace('options_of_this_lesson = \\"\\"',
                                          f'options_of_this_lesson = \\"--quick --answer b --out {tmp_path}\\"')
    (tmp_path / "book.ipynb").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", KERNEL, str(tmp_path / "book.ipynb")], cwd=LESSONS / "results",
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "   your answer: b\n" in done.stdout and "VERDICT  left out, because a run with --quick" in done.stdout
    assert (tmp_path / f"{name}_quick.png").is_file()
    if (tmp_path / f"{name}_quick.json").exists():
        command = json.loads((tmp_path / f"{name}_quick.json").read_text())["command"]
        assert command.startswith(f"python lessons/{name}.py --quick")


def setup_cell(maker, tmp_path, repository=""):
    """Run the first cell alone, in a folder that is in no clone; prints where it ends."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    code = maker.SETUP.replace('REPOSITORY = ""', f"REPOSITORY = {str(repository)!r}")
    return subprocess.run([sys.executable, "-c", code + "\nprint(os.getcwd(), sys.path[0], sep='\\n')"],
                          cwd=elsewhere, capture_output=True, text=True)


def test_outside_a_clone_one_sentence_says_what_to_do(maker, tmp_path):
    """Nothing is fetched from an address that nobody gave."""
    done = setup_cell(maker, tmp_path)
    assert done.returncode == 1
    assert "is in no clone of minicontrolnet: open this notebook in one, or" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.slow
def test_elsewhere_the_project_is_fetched_once(maker, tmp_path):
    """By git, from the address given; the second time the clone is found, even without git's address."""
    project = tmp_path / "project"
    (project / "lessons" / "lesson").mkdir(parents=True)
    (project / "lessons" / "lesson" / "page.py").write_text("")
    (project / "requirements.txt").write_text("json>=2.4\n\n")
    git = ["git", "-C", str(project), "-c", "user.name=x", "-c", "user.email=x"]
    try:
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*git, *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not here")
    clone = tmp_path / "elsewhere" / "minicontrolnet"
    for repository in (project.as_uri(), ""):
        done = setup_cell(maker, tmp_path, repository)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(clone.resolve()), str(clone.resolve() / "lessons")]


def test_a_lesson_that_is_none_is_a_problem(maker, tmp_path):
    """One sentence tells which there are; nothing is written."""
    with pytest.raises(Problem, match="no lesson '77'; there are 00, 01, "):
        maker.main(["--out", str(tmp_path / "made"), "03", "77"])
    assert not (tmp_path / "made").exists()


def test_some_lessons_alone(maker, tmp_path):
    """Those that are named, and no others."""
    maker.main(["--out", str(tmp_path / "made"), "03"])
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["03_zero_conv.ipynb"]


def test_a_notebook_with_changes_becomes_a_backup(maker, tmp_path, capsys):
    """It is not overwritten, whether it was edited or run. An unchanged one is made again without a backup."""
    path = tmp_path / "made" / "03_zero_conv.ipynb"
    words = ["--out", str(tmp_path / "made"), "03"]
    maker.main(words)
    maker.main(words)
    new = path.read_bytes()
    assert list(path.parent.iterdir()) == [path]
    for number in (1, 2):
        path.write_text(f"my answer {number}")
        capsys.readouterr()
        maker.main(words)
        backup = path.with_name(f"03_zero_conv.backup{number}.ipynb")
        assert backup.read_text() == f"my answer {number}" and path.read_bytes() == new
        assert str(backup) in capsys.readouterr().out
