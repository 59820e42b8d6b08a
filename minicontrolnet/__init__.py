"""minicontrolnet: ControlNet (Zhang et al., ICCV 2023), small enough to read and to train on a laptop.

Read the files in this order: shapes, conditions, diffusion, unet, controlnet, sampling, training.
They are the paper. ``measure``, ``draw`` and ``run`` hold everything else. The names below can be
imported from here. Those of ``draw`` are loaded when they are first used: they need torchvision,
which takes longer to import than all the rest.
"""

from typing import Any

from .run import interrupts  # first, since it makes Ctrl-C quiet during the slow imports
from .errors import Problem
from .shapes import (COLOURS, SHAPES, Batch, describe, random_batch, random_scenes, render, tip_of,
                     to_image, tokenize)
from .conditions import CHANNELS, CONDITIONS, condition_of, detect_edges, palette, roughen, stick_figure
from .diffusion import (ALPHA_BAR, TIMESTEPS, cfg, ddim, ddim_step, ddim_steps, ddim_times, ddpm, ddpm_step,
                        eps_from_v, eps_from_x0, loss_weight, noise_loss, q_sample, to_eps, x0_from_eps)
from .unet import Decoder, Encoder, UNet
from .controlnet import ConditionEncoder, ControlNet, lock, zero_conv, zero_conv_gradients
from .sampling import (GUIDANCE, Control, compose, control_window, guess_mode_weights, guided, mask_controls,
                       paper_weights, predictor, sample, sample_steps, seeded_noise, weigh)
from .training import (Training, base_loss, condition_loss, control_loss, drop_words, fresh_batch,
                       random_times_and_noise, seeded)
from .measure.classifier import ShapeClassifier, frechet_distance, shapes_right
from .measure.fingerprint import fingerprint
from .measure.intervals import Paired, difference, no_worse, paired
from .measure.pictures import (colours_right, edge_f1, mask_iou, mask_of, off_palette, palette_error,
                               pose_errors)
from .measure.scores import (condition_scores, conflicting, gap, held_out, loss_of_condition, prompt_scores,
                             shuffle_gap)
from .run.board import show_board
from .run.weights import OtherBase, load_base, load_classifier, load_control, save_weights

_DRAWINGS = ("edges_from_drawing", "edges_from_picture", "palette_from_picture")


def __getattr__(name: str) -> Any:
    if name in _DRAWINGS:
        from .draw import drawings

        return getattr(drawings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
