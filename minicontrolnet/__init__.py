"""minicontrolnet: ControlNet (Zhang et al., ICCV 2023) small enough to read and to train.

The public names, in the order in which a reader meets them. Figures are in
``minicontrolnet.figures``, which is not imported here because matplotlib is slow to load.
"""

from .errors import Problem
from .shapes import COLOURS, SHAPES, Draw, describe, draw, draw_scenes, render, to_grid, to_image, tokenize
from .conditions import CHANNELS, condition_of, detect_edges, palette, roughen
from .diffusion import (ALPHA_BAR, STEPS, ddim, ddim_step, ddpm, ddpm_step, eps_from_v, eps_from_x0,
                        guide, loss_weight, noise_loss, q_sample, to_eps, x0_from_eps)
from .unet import Decoder, Encoder, UNet
from .controlnet import (ConditionedUNet, ConditionEncoder, ControlNet, compose, guided, lock, paper_weights, predictor,
                         released_weights, steer, weigh, zero_conv, zero_conv_gradients)
from .training import base_loss, condition_loss, control_loss, draw_noise, drop_words, fresh, train
from .metrics import (ShapeClassifier, colours_right, edge_f1, frechet_distance, mask_iou, mask_of, off_palette,
                      palette_error, shapes_right, shuffle_gap)
from .evaluation import GUIDANCE, condition_scores, gap, held_out, loss_of_condition, sample_in_batches
from .pretrained import fingerprint, load_base, load_classifier, load_control, save_weights, seeded
from .drawings import edges_from_drawing, edges_from_picture, palette_from_picture
