"""One-way imports: the core imports only the core, ``measure`` the core, ``draw`` both, and ``run`` everything."""

import ast
import subprocess
import sys

import pytest

from conftest import ROOT

PACKAGE = ROOT / "minicontrolnet"
ROOMS = ["", "measure", "draw", "run"]  # the core has no folder; a room imports itself and those before it
LIGHT = {"torch", "einops", "tqdm", *sys.stdlib_module_names}


def imports(path, at_import_time_only):
    """The modules that a file imports, as absolute names."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if at_import_time_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = ("minicontrolnet", *path.relative_to(PACKAGE).parent.parts)
            above = here[: len(here) + 1 - node.level] if node.level else ()
            yield ".".join([*above, *filter(None, [node.module])]) if node.module or not above else None
            if not node.module:
                yield from (".".join([*above, alias.name]) for alias in node.names)


def files():
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name not in ("__init__.py", "__main__.py")]


def room_of(module):
    """The room of a module of the package: "" is the core."""
    parts = module.split(".")[1:]
    return parts[0] if parts and (PACKAGE / parts[0]).is_dir() else ""


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_the_rooms_below_it(path):
    room = path.relative_to(PACKAGE).parent.parts[:1]
    allowed = ROOMS[: ROOMS.index(room[0] if room else "") + 1]
    own = [name for name in imports(path, at_import_time_only=False) if name and name.startswith("minicontrolnet")]
    assert {room_of(name) for name in own} <= {*allowed}
    if "draw" not in room:
        heavy = {name.split(".")[0] for name in imports(path, at_import_time_only=True) if name}
        assert heavy <= LIGHT | {"minicontrolnet"}, "import it inside of the function that needs it"


def test_every_public_name_can_be_imported_from_the_package():
    """Also those that are loaded at their first use, and with nothing heavy loaded before it."""
    code = ("import sys, minicontrolnet as m; heavy = {'torchvision', 'matplotlib', 'PIL'} & {*sys.modules}; "
            "assert not heavy, heavy; m.sample, m.Training, m.edges_from_drawing, m.load_base")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
