"""The weights that ship: what a file holds, and how one is made, checked and loaded.

``weights/NAME.pt`` holds the averaged weights in half precision; ``weights/NAME.txt`` beside
it tells the command, seed, steps, versions, minutes and scores, and the tensors' fingerprint.
"""

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from .conditions import CHANNELS
from .controlnet import ControlNet, lock
from .files import Problem, load_file, save_file
from .metrics import ShapeClassifier
from .unet import UNet

WEIGHTS = Path(__file__).parent / "weights"


def seeded(seed: int, build, *args, **options) -> nn.Module:
    """Build a module with initial weights from a seed; torch's global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*args, **options)


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the sorted names, dtypes, shapes and bytes of tensors.

    The hash of the file itself would change with its name, which torch.save stores in it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_weights(network: nn.Module, kind: str, path: Path) -> str:
    """Write a network's weights in half precision; returns their fingerprint."""
    weights = {name: tensor.detach().cpu().half() for name, tensor in network.state_dict().items()}
    save_file({"kind": kind, "weights": weights}, path)
    return fingerprint(weights)


def load_base(path: Path | None = None, device: str | torch.device = "cpu") -> UNet:
    """The locked base, shipped or from a file that training wrote."""
    base = UNet()
    _load_into(base, "base", path)
    return lock(base).to(device)


def load_control(kind: str, base: UNet, path: Path | None = None) -> ControlNet:
    """The "edge", "palette" or "pose" ControlNet, shipped or from a file, on the base's device."""
    control = ControlNet(base, CHANNELS[kind])
    _load_into(control, kind, path)
    return lock(control)


def load_classifier() -> ShapeClassifier:
    """The shape classifier that the metrics use, shipped."""
    classifier = ShapeClassifier()
    _load_into(classifier, "shapes", None)
    return lock(classifier)


def _load_into(network: nn.Module, kind: str, path: Path | None) -> None:
    shipped = path is None
    path = WEIGHTS / f"{kind}.pt" if shipped else path
    content = load_file(path)
    found = content if isinstance(content, dict) and isinstance(content.get("weights"), dict) else {}
    if found.get("kind") != kind:
        raise Problem(f"{path} holds {found.get('kind', 'something else')}, not the weights of a {kind};"
                      " give another file")
    try:
        network.load_state_dict(found["weights"])
    except (RuntimeError, AttributeError, TypeError) as error:
        raise Problem(f"{path} belongs to a network of another size; train it again") from error
    if shipped and fingerprint(found["weights"]) != _recorded(path.with_suffix(".txt")):
        raise Problem(f"{path} is not the file that was shipped: its fingerprint differs from the one"
                      f" in {path.with_suffix('.txt').name}; restore it from the repository")
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise Problem(f"{path} holds numbers that are not finite; train it again")


def _recorded(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Problem(f"{path} is missing or damaged, so the weights cannot be checked; restore it") from None
    return next((line.split()[-1] for line in lines if line.startswith("fingerprint:")), "")
