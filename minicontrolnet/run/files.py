"""Files: written completely or not at all, and read without running any code in them."""

import errno
import glob
import io
import os
import pickle
import shutil
import time
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import torch

from ..errors import Problem, advice_on_missing


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file completely or not at all: a crash or a full disk leaves the old file as it was.

    The bytes go to a temporary file beside ``path``, which then takes its place. A link is
    followed: the file that it points to is replaced, and the link stays. Raises Problem if the
    place cannot be written or is not a plain file.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise Problem(f"the data for {path} are a {type(data).__name__}; give bytes, such as text.encode()")
    _write(path, data, keep=True)


def set_aside(path: str | Path) -> Path:
    """Rename a file to a backup with the first free number, such as name.backup1.py. Returns the new name."""
    path = Path(path)
    backups = (path.with_suffix(f".backup{i}{path.suffix}") for i in count(1))
    return path.rename(next(backup for backup in backups if not os.path.lexists(backup)))


def write_and_keep(path: str | Path, data: bytes) -> None:
    """Write a file that somebody may have edited. Another one in its place becomes a backup, which is told."""
    check_place(path)
    path = Path(path)
    if path.is_file() and path.read_bytes() != data:
        print(f"the {path.name} that was here is now {set_aside(path)}")
    write_file(path, data)


def check_place(path: str | Path) -> None:
    """Raise Problem if ``path`` cannot be written. Commands call this before their work, not after it."""
    _write(path, b"", keep=False)


def _write(path: str | Path, data: bytes, keep: bool) -> None:
    if str(path).startswith("~/"):
        raise Problem(f"cannot write {path}: {advice_on_missing(path)}")
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not os.path.isfile(target):  # unlike Path's methods, these never raise
        raise Problem(f"cannot write {path}: it is not a plain file; give another name")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise Problem(f"cannot write {path}: it is write-protected; make it writable, or give another name")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)  # a private file stays private
        if keep:
            os.replace(temporary, target)
    except OSError as error:
        blocking = next((folder for folder in target.parents if os.path.exists(folder)), target.parent)
        if not os.path.isdir(blocking):
            raise Problem(f"cannot write {path}: {blocking} is not a folder; give another folder") from error
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space or give another name" if is_full else "give another name or another folder"
        raise Problem(f"cannot write {path} ({error.strerror or error}); the old file, if there was one, is unchanged;"
                      f" {advice}") from error
    finally:
        with suppress(OSError):  # it has taken its place, or was never made
            temporary.unlink()


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writes to ``path`` that were killed an hour ago or earlier."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with suppress(OSError):
            if left.suffix[1:].isdigit() and time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def save_file(content: Any, path: str | Path) -> None:
    """torch.save, completely or not at all. Raises Problem for what load_file would not read again."""
    check_plain(content, f"cannot write {path}: its content")
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Problem(f"cannot write {path} ({error}); give tensors and plain values") from error
    write_file(path, buffer.getvalue())


def load_file(path: str | Path) -> Any:
    """torch.load of tensors and plain values onto the CPU. No code in the file runs.

    Raises Problem if the file is damaged or is something else, or if a tensor in it is sparse,
    complex or not finite.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for its other end
        raise Problem(f"cannot read weights from {path}: it is not a plain file; give the name of a file")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch.load does not check, so a flipped bit would become a wrong weight
                raise zipfile.BadZipFile("wrong checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise Problem(f"{path} does not exist; {advice_on_missing(path)}, or train it first") from None
    except Exception as error:  # damaged bytes can raise almost anything
        if isinstance(error, pickle.UnpicklingError) and "Unsupported global" in str(error):
            raise Problem(f"{path} holds more than tensors, such as a whole network, and reading it could run code in"
                          " it; save the network by save_weights(network, kind, path) instead") from error
        raise Problem(f"cannot read weights from {path} ({type(error).__name__}): it is damaged or is another"
                      " kind of file; restore it, or train it again") from error
    tensors = [part for part in _parts(content) if isinstance(part, torch.Tensor)]
    if not all(tensor.device.type == "cpu" and _is_usual(tensor) for tensor in tensors):
        raise Problem(f"{path} contains numbers that are not finite, or tensors of an unusual kind;"
                      " train it again")
    return content


PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.device, torch.Size, dict, OrderedDict, list,
         tuple)


def check_plain(content: Any, name: str) -> None:
    """Raise Problem for anything but finite tensors and plain values, which load_file reads again.

    A number of numpy's looks like a plain one, but torch refuses to read it. Tensors may be on a GPU.
    """
    for part in _parts(content):
        if isinstance(part, torch.Tensor):
            if not _is_usual(part):
                raise Problem(f"{name} has a tensor that is not finite, or of an unusual kind; give finite numbers")
        elif type(part) not in PLAIN:
            raise Problem(f"{name} has a value of the type {type(part).__name__}; give tensors and plain values, for"
                          " example by float(), int() or str()")


def _parts(content: Any) -> Iterator[Any]:
    """A content, and everything inside its dictionaries, lists and tuples."""
    yield content
    inside: Iterable[Any] = ()
    if isinstance(content, dict):
        inside = (*content.keys(), *content.values())
    elif isinstance(content, (list, tuple)):
        inside = content
    for part in inside:
        yield from _parts(part)


def _is_usual(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values, all finite, and is neither sparse nor complex nor quantized."""
    odd = tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized or tensor.is_meta
    return not odd and bool(tensor.isfinite().all())
