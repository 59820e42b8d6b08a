"""A fingerprint of weights, by which a file can say exactly which base it belongs to."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import Problem, check_tensor


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the sorted names, dtypes, shapes and bytes of tensors, such as a state_dict.

    The hash of a file would not do: torch.save stores the file's name in it. Files of weights hold half precision, and
    the text beside them lists the fingerprint of that; is_fingerprint_of allows for it.
    """
    if not isinstance(tensors, Mapping):
        raise Problem(f"the tensors are a {type(tensors).__name__}; give them by name, such as network.state_dict()")
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        check_tensor("the weights", tensor)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_fingerprint_of(mark: str, network: nn.Module) -> bool:
    """Whether this is the fingerprint of a network's weights: as they are, in float32, or in half precision."""
    weights = network.state_dict()
    if fingerprint(weights) == mark:
        return True
    for dtype in (torch.float32, torch.float16):
        if fingerprint({name: tensor.to(dtype) for name, tensor in weights.items()}) == mark:
            return True
    return False
