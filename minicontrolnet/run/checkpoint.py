"""Checkpoints: the state of a training on disk, and how it goes on from there."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import Problem
from ..training import Training
from .files import check_place, check_plain, load_file, save_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Checkpoint:
    """The file that holds the state of one training.

    run: plain values that distinguish this run from others, such as its seed and its base. A run
    can only be resumed with the same values. command: the command that started the run.
    ``seconds`` counts the time of the whole run, interruptions left out.
    """

    def __init__(self, training: Training, path: Path, run: dict[str, Any], command: str = ""):
        check_plain(run, "the run")
        for name, value in run.items():
            if value != value:
                raise Problem(f"the {name} of the run is nan, which equals nothing, so the run could not be resumed;"
                              " give a number or a text")
        self.training = training
        self.path = Path(os.path.abspath(path))  # the same file, also after os.chdir
        self.is_others = self.path.exists()  # until it is loaded, the file holds the state of an earlier training
        self.run = run
        self.command = command
        self.begun = time.perf_counter()
        self.stamp = self._stamp()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun

    def save(self) -> None:
        """Write the state. Raises Problem if somebody else has written the file in the meantime."""
        if self.is_others and self.path.exists():
            raise Problem(f"{self.path} holds the state of an earlier training; go on from it by load(), or give"
                          " another path")
        if self._stamp() not in (None, self.stamp):  # None: it was removed, so nothing would be lost
            raise Problem(f"another training has written to {self.path}, so this one stopped and left the file"
                          " as it is; give each training an --out of its own")
        save_file(self._content(), self.path)
        self.stamp = self._stamp()

    def load(self) -> None:
        """Go on from the file. Raises Problem if it is damaged or belongs to another run."""
        found = load_file(self.path)
        self._check(found)
        self.training.load_state_dict(found["training"])
        self.begun -= found["seconds"]
        self.command = found["command"]
        self.is_others = False

    def _content(self) -> dict[str, Any]:
        return {"training": self.training.state_dict(), "run": self.run, "seconds": self.seconds,
                "command": self.command, "locked": self._locked()}

    def _locked(self) -> list[str]:
        """The names of the parameters that do not train."""
        return [name for name, weight in self.training.network.named_parameters() if not weight.requires_grad]

    def _stamp(self) -> int | None:
        """A number that changes whenever the file is replaced."""
        return self.path.stat().st_mtime_ns if self.path.exists() else None

    def _check(self, found: Any) -> None:
        """Compare what was found with this run's own state, before anything is changed."""
        ours = self._content()
        try:
            theirs = found["training"]
            torch.Generator().set_state(theirs["generator"])
            fits = alike(_without_moments(found), _without_moments(ours)) and self._moments_fit(theirs["optimiser"])
            fits = fits and theirs["step"] >= 0 and isinstance(found["run"], dict)
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError, ValueError):
            fits = False
        if not fits:
            raise Problem(f"{self.path} is not the state of this training: it is damaged or belongs to another"
                          " network; resume with the command that started the run")
        for name in [*self.run, *found["run"]]:
            value, other = self.run.get(name), found["run"].get(name)
            if value != other:
                raise Problem(f"{self.path} belongs to a run whose {name} is {other}, not {value};"
                              " resume with the command that started it, or choose another --out")
        if found.get("locked", self._locked()) != self._locked():  # older files do not hold it
            raise Problem(f"{self.path} belongs to a run that locked other parameters; lock the same ones, or choose"
                          " another file")
        if theirs["step"] > self.training.steps:
            raise Problem(f"{self.path} is the state after {theirs['step']} steps, and this training has only"
                          f" {self.training.steps}; give it as many as before")

    def _moments_fit(self, optimiser: dict[str, Any]) -> bool:
        """Whether AdamW's moments have the shapes of the weights. A locked parameter has no moments."""
        weights = list(self.training.network.parameters())
        for i, moments in optimiser["state"].items():
            wanted = {"step": torch.zeros((), dtype=torch.float32), "exp_avg": weights[i], "exp_avg_sq": weights[i]}
            if not alike(moments, wanted):
                return False
        return True


def _without_moments(content: dict[str, Any]) -> dict[str, Any]:
    """The content without AdamW's moments: there are none before the first step.

    The run and what is locked are compared by themselves. The training's steps, rate and seed are left out as well:
    older files lack them, and the run holds its own.
    """
    training = {name: part for name, part in content["training"].items() if name not in ("steps", "lr", "seed")}
    training["optimiser"] = training["optimiser"]["param_groups"]
    return content | {"run": None, "locked": None, "training": training}


def alike(a: Any, b: Any) -> bool:
    """Whether two nested states have the same names and types, and their tensors the same shapes and dtypes."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    return type(a) is type(b) or {type(a), type(b)} <= {int, float}


# %% Ctrl-C, and one training for each file


@contextmanager
def finish_step_on_ctrl_c() -> Iterator[list[int]]:
    """Yield a list to which the first Ctrl-C, ``kill`` or closed terminal adds its number.

    The second one interrupts at once. A signal that was ignored, as ``nohup`` does, stays ignored.
    """
    asked: list[int] = []
    before: dict[int, Any] = {}

    def as_usual() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        as_usual()

    with suppress(ValueError):  # outside of the main thread, as in some notebooks, Ctrl-C stays as it is
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        as_usual()


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Hold ``path`` for this program alone. Raises Problem if another one holds it.

    The lock is the operating system's, on a file beside ``path``, so it also ends
    if the process is killed. Windows has no lock of this kind, and neither have some network drives.
    """
    beside = path.with_name(f".{path.name}.lock")
    check_place(beside)
    file = _locked(beside, path)
    try:
        yield
    finally:
        with suppress(OSError):
            beside.unlink()
        file.close()


def _locked(beside: Path, path: Path) -> Any:
    """The opened and locked file. It is opened again if its last holder has removed it in the meantime."""
    while True:
        file = open(beside, "wb")
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise Problem(f"another training is writing to {path}; wait until it ends, or give this one an"
                          " --out of its own") from None
        except OSError:  # this drive has no locks
            return file
        if not fcntl or _same_file(file, beside):
            return file
        file.close()


def _same_file(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
