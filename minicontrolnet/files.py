"""Files, all or nothing, and the one exception that a person is meant to read."""

import glob
import os
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Problem(ValueError):
    """Something the user can mend, in one sentence: what was given, what is expected, what next."""


@contextmanager
def write_atomically(path: Path) -> Iterator[Any]:
    """Open a temporary file beside ``path`` that takes its place only once it is complete.

    A link is followed: the file that it names is replaced, and the link stays. Raises Problem
    if the place cannot be written, or holds something other than a plain file.
    """
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):  # unlike Path's, these never raise
        raise Problem(f"cannot write {path}: it is no plain file; name another place")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise Problem(f"cannot write {path} ({error}); what was there before is untouched;"
                      " free some space or name another place") from error
    finally:
        with suppress(OSError):  # it is gone, or never came to be
            temporary.unlink()


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writes to ``path`` that were killed an hour ago or earlier."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):
            if left.suffix[1:].isdigit() and time.time() - left.stat().st_mtime > 3600:
                left.unlink()


class _Enough(Exception):
    """Ends a trial of writing."""


def check_place(path: Path) -> None:
    """Raise Problem if ``path`` cannot be written: better told before the work than after it."""
    with suppress(_Enough), write_atomically(path):
        raise _Enough


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Hold ``path`` for one program at a time; raises Problem if another one holds it.

    The lock is the system's, on a file beside ``path``: it ends with its process, however that
    ends, so what a killed one leaves holds nobody up. Windows has none of this kind.
    """
    beside = path.with_name(f".{path.name}.lock")
    check_place(beside)
    with open(beside, "wb") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(f"another training is writing to {path}; wait for its end, or give this one"
                          " an --out of its own") from None
        except OSError:  # some network drives know no locks
            pass
        try:
            yield
        finally:
            with suppress(OSError):
                beside.unlink()


def save_file(content: Any, path: Path) -> None:
    """torch.save, all or nothing: a crash or a full disk leaves what was there before."""
    with write_atomically(path) as file:
        torch.save(content, file)


def load_file(path: Path) -> Any:
    """torch.load of tensors and plain values only, onto the CPU; no code in the file runs.

    Tensors must be dense, real and finite: on others, load_state_dict and AdamW may do anything.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would wait for its other end
        raise Problem(f"{path} cannot be read as weights: it is no plain file; give the name of one")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch.load itself would take a flipped bit for a weight
                raise zipfile.BadZipFile("wrong checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Problem(f"{path} does not exist; check the name, or train it first") from None
    except Exception as error:  # damaged bytes can raise almost anything
        raise Problem(f"{path} cannot be read as weights ({type(error).__name__}): it is damaged"
                      " or something else; restore it, or train it again") from error
    if not _is_plain(content):
        raise Problem(f"{path} holds numbers that are not finite, or tensors of an odd kind; train it again")
    return content


def _is_plain(content: Any) -> bool:
    if isinstance(content, torch.Tensor):
        odd = content.layout != torch.strided or content.is_complex() or content.is_quantized
        return not odd and content.device.type == "cpu" and bool(content.isfinite().all())
    parts = content.values() if isinstance(content, dict) else content
    return all(map(_is_plain, parts)) if isinstance(content, (dict, list, tuple)) else True
