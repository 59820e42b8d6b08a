"""The shipped weights, and how weight files are written, checked and loaded.

``weights/NAME.pt`` holds the averaged weights in half precision. The text file ``weights/NAME.txt``
lists the command, seed, steps, versions and minutes of the training, and the fingerprint of the
weights. A ControlNet's file also holds the fingerprint of the base that it was trained on.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from ..conditions import CHANNELS
from ..controlnet import ControlNet, lock
from ..errors import Problem, check_device, check_tensor, shorten
from ..measure.classifier import ShapeClassifier
from ..measure.fingerprint import fingerprint, is_fingerprint_of
from ..training import seeded
from ..unet import UNet
from .files import load_file, save_file

WEIGHTS = Path(__file__).parents[1] / "weights"


class OtherBase(UserWarning):
    """A ControlNet is used with another base than the one that it was trained on."""


def save_weights(network: nn.Module, kind: str, path: str | Path, base: UNet | None = None) -> str:
    """Write the weights of a network in half precision and return their fingerprint.

    base: of a ControlNet, the base that it was trained on. Raises Problem if a weight is not
    finite in half precision, whose largest number is 65504.
    """
    if not isinstance(network, nn.Module):
        raise Problem(f"the network is a {type(network).__name__}; give the network itself, not its state_dict")
    given = _without_prefixes(network.state_dict())
    _check_kind_of(network, given, kind)
    if base is not None and not hasattr(base, "decoder"):
        raise Problem(f"the base is a {type(base).__name__}; give a UNet, such as load_base() returns")
    loaded_as = getattr(network, "kind", None)
    if loaded_as and loaded_as != kind:
        warnings.warn(f"this is the {loaded_as} ControlNet, and it is saved as one for {kind} conditions", stacklevel=2)
    if isinstance(network, ControlNet) and base is not None:
        if _shapes(network.encoder.state_dict()) != _shapes(base.encoder.state_dict()):
            raise Problem("the ControlNet is a copy of a base of another size; give the base that it was trained on")
    for tensor in given.values():
        check_tensor("the weights", tensor)
    weights = {name: tensor.detach().cpu().half() for name, tensor in given.items()}
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise Problem(f"the weights of this {kind} are not finite, or are too large for half precision (65504),"
                      f" so {path} was not written; train with a smaller learning rate")
    content: dict[str, Any] = {"kind": kind, "weights": weights}
    if base is not None:
        content["base"] = fingerprint({name: tensor.half() for name, tensor in base.state_dict().items()})
    save_file(content, path)
    return fingerprint(weights)


def _check_kind_of(network: nn.Module, given: dict[str, Tensor], kind: str) -> None:
    """Raise Problem if a network with the ``given`` weights cannot be of this kind: nothing could load the file."""
    if kind not in ("base", "shapes", *CHANNELS):
        raise Problem(f"there are no weights of the kind {shorten(repr(kind))}; give one of base, shapes,"
                      f" {', '.join(CHANNELS)}")
    first = given.get("condition_encoder.layers.0.weight")
    channels = 0 if first is None else first.shape[1]  # 0: the network is no ControlNet
    if kind in CHANNELS and channels != CHANNELS[kind] or kind == "base" and channels:
        raise Problem(f"the {type(network).__name__} is not of the kind {kind!r}; give the network that belongs to it")
    like = seeded(0, _new, kind)  # what the file will be loaded into
    if kind in CHANNELS:  # its size is that of its base
        if list(given) != list(like.state_dict()):
            raise Problem(f"the {type(network).__name__} has other weights than {_named(kind)}, so nothing could load"
                          " the file; remove what was added, for example by torch.nn.utils.prune.remove")
        return
    wanted = _shapes(like.state_dict())
    if _shapes(given) != wanted:
        raise Problem(f"the {type(network).__name__} has other weights than {_named(kind)}, so nothing could load the"
                      " file; give the network that belongs to this kind, in its default size")
    predicts = getattr(network, "prediction_type", None)
    if kind == "base" and predicts and predicts != like.prediction_type:
        raise Problem(f"the base predicts {predicts}, but a file does not hold that, and load_base would take it for"
                      f" {like.prediction_type}; save its state_dict by torch.save instead")


def _new(kind: str) -> nn.Module:
    """A network of this kind in its default size."""
    if kind in CHANNELS:
        return ControlNet(UNet(), CHANNELS[kind])
    return UNet() if kind == "base" else ShapeClassifier()


def load_base(path: str | Path | None = None, device: str | torch.device = "cpu") -> UNet:
    """The locked base: the shipped one, or one from a file that training wrote."""
    check_device(device)
    base = UNet()
    _load_into(base, "base", path)
    return lock(base).to(device)


def load_control(kind: str, base: UNet, path: str | Path | None = None) -> ControlNet:
    """The locked "edge", "palette" or "pose" ControlNet on the base's device: the shipped one, or one from a file.

    Warns with OtherBase if it was trained on another base than ``base``, or if its file does not record on which.
    """
    if not isinstance(kind, str) or kind not in CHANNELS:
        found = repr(kind) if isinstance(kind, str) else f"of the kind {type(kind).__name__}"
        raise Problem(f"there is no ControlNet {found}; give one of {', '.join(CHANNELS)}")
    control = ControlNet(base, CHANNELS[kind])
    control.kind = kind
    trained_on = _load_into(control, kind, path)
    _tell_other_base(trained_on, base, f"the {kind} ControlNet {path or 'that ships'}",
                     "it may follow its condition less well; train it on this base, or give its own base")
    return lock(control)


def _tell_other_base(trained_on: str | None, base: UNet, name: str, advice: str) -> None:
    """Warn if a ControlNet's file names another base than this one, or none.

    ``stacklevel`` lets the warning point at the line that called the public function.
    """
    if not trained_on:
        warnings.warn(f"{name} does not record on which base it was trained, so it may belong to another one than this;"
                      " save it by save_weights(control, kind, path, base)", OtherBase, stacklevel=3)
    elif not is_fingerprint_of(trained_on, base):
        warnings.warn(f"{name} was trained on another base than this one, so {advice}", OtherBase, stacklevel=3)


def start_from(control: ControlNet, source: str | Path, base: UNet) -> str:
    """Load a trained ControlNet, also one for another condition, as the start of a new training.

    source: "edge", "palette" or "pose" for a shipped one, or a file. Where the condition has another
    number of channels, the first layer of the condition encoder keeps its new weights. Returns a
    description of the start for the training's records. Warns with OtherBase if the start was trained
    on another base than ``base``.
    """
    if not isinstance(control, ControlNet) or not isinstance(source, (str, Path)):
        raise Problem(f"start_from was given a {type(control).__name__} and a {type(source).__name__}; give the new"
                      ' ControlNet, and then "edge", "palette", "pose" or a file')
    path = WEIGHTS / f"{source}.pt" if str(source) in CHANNELS else Path(source)
    found = load_file(path)
    _refuse_raw_weights(found, path)
    kind = found.get("kind") if isinstance(found, dict) else None
    if kind not in CHANNELS:
        raise Problem(f"{path} does not hold the weights of a ControlNet; give edge, palette, pose or another file")
    weights = _weights_of_kind(found, kind, path)
    mark = fingerprint(weights)
    first = "condition_encoder.layers.0.weight"
    if CHANNELS[kind] != control.c_condition:
        weights[first] = control.state_dict()[first]
    if _shapes(weights) != _shapes(control.state_dict()):  # load_state_dict would first copy what does fit
        raise Problem(f"the weights in {path} belong to a ControlNet of another size; give another file")
    control.load_state_dict(weights)
    _tell_other_base(found.get("base"), base, f"the {kind} ControlNet {path}, from which this training starts,",
                     "it may be a poor start; give the base that it was trained on, or train longer")
    return f"{kind} ControlNet {mark}"


def load_classifier() -> ShapeClassifier:
    """The shipped and locked shape classifier, which the scores use."""
    classifier = ShapeClassifier()
    _load_into(classifier, "shapes", None)
    return lock(classifier)


def _load_into(network: nn.Module, kind: str, path: str | Path | None) -> str | None:
    """Load a file into a network. Returns the fingerprint of the base, where the file holds one."""
    shipped = path is None
    path = WEIGHTS / f"{kind}.pt" if shipped else Path(path)
    found = load_file(path)
    weights = _weights_of_kind(found, kind, path)
    try:
        network.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise Problem(f"the weights in {path} belong to a network of another size or structure than {_named(kind)};"
                      " give another file, or train it again") from error
    if shipped and fingerprint(weights) != _recorded(path.with_suffix(".txt")):
        raise Problem(f"{path} is not the file that was shipped: its fingerprint differs from the one"
                      f" in {path.with_suffix('.txt').name}; restore it from the repository")
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise Problem(f"{path} contains numbers that are not finite; train it again")
    return found.get("base")


def _shapes(weights: dict[str, Tensor]) -> dict[str, torch.Size | None]:
    """The shape of each weight; None for what is no tensor."""
    return {name: getattr(weight, "shape", None) for name, weight in weights.items()}


def _named(kind: str) -> str:
    """A kind of network with its article, such as "an edge ControlNet"."""
    if kind in CHANNELS:
        return f"an {kind} ControlNet" if kind == "edge" else f"a {kind} ControlNet"
    return {"base": "a base", "shapes": "a shape classifier"}[kind]


def _weights_of_kind(found: Any, kind: str, path: Path) -> dict[str, Tensor]:
    """The weights in a file's content. Raises Problem if they are of another kind."""
    _refuse_raw_weights(found, path)
    if not (isinstance(found, dict) and isinstance(found.get("weights"), dict)):
        raise Problem(f"{path} does not hold the weights of {_named(kind)}, but something else; give a file that"
                      " train or save_weights wrote")
    if found.get("kind") != kind:
        raise Problem(f"{path} holds the weights of {found.get('kind')!r}, not of {kind!r}; give another file")
    return _without_prefixes(found["weights"])


def _refuse_raw_weights(found: Any, path: Path) -> None:
    """Raise Problem if a file holds a state_dict that torch.save wrote, alone or inside a dictionary, or a training."""
    if not isinstance(found, dict) or "kind" in found:
        return
    if "training" in found:
        raise Problem(f"{path} holds the state of a training, which --resume goes on from; give the file of its"
                      " weights, which is written at its end")
    for content in (found, *found.values()):
        if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
            raise Problem(f"{path} holds a bare state_dict, which does not say of what kind its weights are; load it"
                          " into its network by load_state_dict, and write that by save_weights(network, kind, path)")


def _without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights without what torch.compile, DataParallel and AveragedModel add to names."""
    weights = dict(weights)
    if "n_averaged" in weights and all(name == "n_averaged" or name.startswith("module.") for name in weights):
        del weights["n_averaged"]
    for prefix in ("module.", "_orig_mod."):
        if all(isinstance(name, str) for name in weights):
            consume_prefix_in_state_dict_if_present(weights, prefix)
    return weights


def _recorded(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Problem(f"{path} is missing or damaged, so the weights cannot be checked; restore it") from None
    return next((line.split()[-1] for line in lines if line.startswith("fingerprint:")), "")
