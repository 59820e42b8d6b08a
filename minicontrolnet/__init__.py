"""minicontrolnet: ControlNet (Zhang et al., ICCV 2023) small enough to read and to train.

The public names, in the order in which a reader meets them. Figures are in
``minicontrolnet.figures``, which is not imported here because matplotlib is slow to load.
"""

from .files import Problem
from .shapes import (COLOURS, SHAPES, Batch, describe, random_batch, random_scenes, render, tip_of,
                     to_image, tokenize)
from .conditions import CHANNELS, condition_of, detect_edges, palette, roughen, stick_figure
from .diffusion import (ALPHA_BAR, TIMESTEPS, cfg, ddim, ddim_step, ddpm, ddpm_step, eps_from_v,
                        eps_from_x0, loss_weight, noise_loss, q_sample, to_eps, x0_from_eps)
from .unet import Decoder, Encoder, UNet
from .controlnet import (ConditionedUNet, ConditionEncoder, ControlNet, lock, zero_conv,
                         zero_conv_gradients)
from .sampling import (GUIDANCE, compose, guess_mode_weights, guided, paper_weights, predictor, sample,
                       weigh)
from .training import (base_loss, condition_loss, control_loss, drop_words, fresh_batch,
                       random_times_and_noise, train)
from .metrics import (ShapeClassifier, colours_right, edge_f1, frechet_distance, mask_iou, mask_of,
                      off_palette, palette_error, pose_errors, shapes_right, shuffle_gap)
from .evaluation import (Paired, condition_scores, conflicting, gap, held_out, loss_of_condition, paired,
                         prompt_scores)
from .pretrained import (fingerprint, load_base, load_classifier, load_control, save_weights, seeded)
from .drawings import edges_from_drawing, edges_from_picture, palette_from_picture
