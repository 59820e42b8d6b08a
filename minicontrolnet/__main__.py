"""python -m minicontrolnet train | sample | evaluate | speed"""

import argparse
import platform
import sys
import time
from pathlib import Path

import torch

from . import evaluation, speed
from .conditions import CHANNELS, edges_from_drawing, edges_from_picture, palette_from_picture
from .controlnet import ControlNet, predictor, steer
from .diffusion import STEPS, ddim, guide
from .errors import Problem
from .pretrained import fingerprint, load_base, load_control, save_weights, seeded
from .shapes import describe, tokenize
from .training import base_loss, control_loss, train
from .unet import UNet

RECIPES = {"base": (2e-3, 10000), "edge": (1e-3, 4000), "palette": (1e-3, 2500)}  # lr, steps


def number(kind, low, high):
    """An argparse type: a number from low to high, said in words where it is not."""

    def parse(text: str):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {noun} from {low} to {high}")
        return value

    return parse


def device(text: str) -> torch.device:
    """An argparse type: auto (CUDA if there is one, else CPU), cpu, cuda or mps."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = ("cuda" if there["cuda"] else "cpu") if text == "auto" else text
    if name not in there:
        raise argparse.ArgumentTypeError(f"{text!r} is not a device; give auto, cpu, cuda or mps")
    if not there[name]:
        raise argparse.ArgumentTypeError(f"this machine has no {name!r} device; give --device cpu")
    return torch.device(name)
