"""Scores and intervals refuse in one sentence what would otherwise be a wrong number."""

import numpy as np
import pytest
import torch

from minicontrolnet import (ControlNet, Training, colours_right, condition_of, condition_scores, conflicting, control_loss,
                            detect_edges,
                            difference, edge_f1, fingerprint, frechet_distance, gap, held_out, load_base, load_classifier,
                            load_control, loss_of_condition, mask_iou, mask_of, no_worse, off_palette, paired,
                            palette_error, pose_errors, prompt_scores, seeded, shapes_right, shuffle_gap, tokenize)
from minicontrolnet.errors import Problem
from minicontrolnet.measure.intervals import Paired, student_t

NAN = float("nan")


@pytest.fixture(scope="module")
def batch():
    return held_out(2)[0]


def test_each_image_has_a_scene_and_a_prompt_of_its_own(batch):
    one = batch.image[:1]
    with pytest.raises(Problem, match="one scene for each image"):
        pose_errors(one, batch.scenes)
    with pytest.raises(Problem, match="batch.scenes"):
        pose_errors(batch.image, batch)
    with pytest.raises(Problem, match="one prompt for each image"):
        colours_right(batch.image, batch.prompt[:1])
    with pytest.raises(Problem, match="one prompt for each image"):
        shapes_right(batch.image, batch.prompt[:1], None)
    with pytest.raises(Problem, match="tokens"):
        shapes_right(batch.image, "star", None)


@pytest.mark.parametrize("factor", [float("nan"), 255.0])
def test_masks_are_in_0_and_1(batch, factor):
    with pytest.raises(Problem, match="the masks"):
        mask_iou(batch.mask * factor, batch.mask)


def test_masks_have_one_channel(batch):
    with pytest.raises(Problem, match="n, 1, h, w"):
        mask_iou(batch.image, batch.image)


@pytest.mark.parametrize("change", [lambda images: images.movedim(1, -1), lambda images: images[:, :1]])
def test_a_mask_is_found_in_pictures_with_three_colours(batch, change):
    with pytest.raises(Problem, match="n, 3, h, w"):
        mask_of(change(batch.image))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (2, 3, 64, 64), (2, 64, 64)])
def test_the_classifier_takes_masks_of_its_size(shape):
    classifier = load_classifier()
    for use in (classifier, classifier.features):
        with pytest.raises(Problem, match="n, 1, 64, 64"):
            use(torch.ones(shape))


@pytest.mark.parametrize("change", [lambda batch, edges: edges * 0.4, lambda batch, edges: edges * 0.6,
                                    lambda batch, edges: batch.mask])
def test_edge_maps_are_0_or_1(batch, change):
    """A grey map used to change the score: by 0.6 it was 0.75 instead of 1."""
    edges = detect_edges(batch.image)
    with pytest.raises(Problem, match="give 0 or 1"):
        edge_f1(batch.image, change(batch, edges))
    assert torch.equal(edge_f1(batch.image, edges), torch.ones(2))


def test_a_loss_is_that_of_a_condition_for_each_picture():
    base = load_base()
    loss, edges = loss_of_condition(base, load_control("edge", base), "edge", n=2)
    assert torch.equal(edges, condition_of("edge", held_out(2)[0]))
    with pytest.raises(Problem, match="same shape"):
        loss(edges[:1])
    for wrong in (edges * 255, edges * float("nan")):
        with pytest.raises(Problem, match="the conditions have values"):
            loss(wrong)
    assert 0 < loss(edges) < loss(edges.roll(1, 0))


def test_bytes_are_no_mask(batch):
    """A byte of 1 of 255 is above one half, too."""
    with pytest.raises(Problem, match="the masks have values from 0 to 255"):
        mask_iou((batch.mask * 255).byte(), (batch.mask * 255).byte())


def test_pictures_have_three_colours(batch):
    """One channel would be compared with all three."""
    grey = batch.image[:, :1]
    for score in (lambda: palette_error(batch.image, grey), lambda: palette_error(grey, batch.image),
                  lambda: colours_right(grey, batch.prompt), lambda: off_palette(grey)):
        with pytest.raises(Problem, match="n, 3, h, w"):
            score()


@pytest.mark.parametrize("freedom, share", [(0, 0.95), (1.5, 0.95), (3, 1.5), (3, float("nan"))])
def test_students_t_has_a_freedom_and_a_share(freedom, share):
    with pytest.raises(Problem, match="freedom is|share is"):
        student_t(freedom, share)


def test_masks_may_be_bool(batch):
    mask = batch.mask > 0.5
    assert torch.equal(mask_iou(mask, mask), torch.ones(2))


@pytest.mark.parametrize("reach", [float("nan"), -1, "a"])
def test_a_reach_is_a_distance(batch, reach):
    with pytest.raises(Problem, match="reach is"):
        off_palette(batch.image, reach)


def test_pictures_in_the_samplers_range_are_not_scored(batch):
    with pytest.raises(Problem, match="the images have values"):
        off_palette(batch.x0)
    with pytest.raises(Problem, match="the images have values"):
        colours_right(batch.x0, batch.prompt)


def test_a_word_that_is_missing_is_neither_right_nor_wrong(batch):
    """It used to count as wrong: the colour accuracy of an empty prompt was 0."""
    classifier = load_classifier()
    for prompt in ("", "star", "red star", "red on blue"):
        with pytest.raises(Problem, match="names no"):
            prompt_scores(batch.image, tokenize([prompt] * 2), classifier)
    with pytest.raises(Problem, match="names no colour"):
        colours_right(batch.image, tokenize(["star"] * 2))
    with pytest.raises(Problem, match="names no shape"):
        shapes_right(batch.image, tokenize(["red on blue"] * 2), classifier)
    with pytest.raises(Problem, match="names no shape"):
        conflicting(tokenize("red on blue"))
    words = batch.prompt.clone()
    words[:, [0, 2]] = 0
    assert shapes_right(batch.image, words, classifier).all()  # the word that is there counts


@pytest.mark.parametrize("margin", [-0.1, float("nan"), "0.1", None])
def test_a_margin_is_not_negative(margin):
    with pytest.raises(Problem, match="the margin is"):
        no_worse(Paired(0.0, 0.1, 0.2), margin)


def test_conflicting_takes_tokens():
    with pytest.raises(Problem, match="tokens"):
        conflicting(tokenize("star").float())


@pytest.mark.parametrize("few", [[], [1.0]])
def test_an_interval_needs_two_differences(few):
    with pytest.raises(Problem, match="at least 2"):
        paired(few)


def test_differences_are_paired():
    with pytest.raises(Problem, match="as many on both sides"):
        difference([1.0, 2.0], [1.0, 2.0, 3.0])
    assert isinstance(difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0])), Paired)


@pytest.mark.parametrize("a, b", [((1, 4), (5, 4)), ((5, 4), (5, 3)), ((5,), (5,)), ((2, 3, 4, 4), (2, 3, 4, 4))])
def test_frechet_distance_takes_two_sets_of_features(a, b):
    with pytest.raises(Problem, match="the features"):
        frechet_distance(torch.rand(a), torch.rand(b))


def test_a_gap_needs_a_neighbour():
    with pytest.raises(Problem, match="at least 2"):
        shuffle_gap(lambda condition: condition.mean(), torch.ones(1, 1, 4, 4))
    for wrong, shape in ((torch.ones(0, 1, 4, 4), "0, 1, 4, 4"), (torch.ones(1, 4, 4), "1, 4, 4"), (torch.ones(2, 4), "2, 4")):
        with pytest.raises(Problem, match=rf"the conditions have the shape \({shape}\); give \(n, c, h, w\)"):
            shuffle_gap(lambda condition: condition.mean(), wrong)
    with pytest.raises(Problem, match="n is"):
        gap(None, None, "edge", "2")


@pytest.mark.parametrize("seed", [1.5, 2**32 + 10_000, None])
def test_held_out_pictures_have_a_seed(seed):
    with pytest.raises(Problem, match="the seed is"):
        held_out(2, seed=seed)


def test_float64_as_the_default_trains_and_measures(shipped):
    """Networks that were loaded before stay in float32, and later ones are in float64: both agree to float32's digits."""

    def measured(base, control, classifier):
        untrained = seeded(0, ControlNet, base).to(next(base.parameters()).dtype)
        generator = torch.Generator().manual_seed(1)
        loss = control_loss(base, "edge")(untrained, generator)
        [(_, first)] = Training(untrained, control_loss(base, "edge"), 1, lr=1e-3)
        truth, _ = held_out(4)
        found = prompt_scores(truth.image, truth.prompt, classifier)
        assert found == {"colour accuracy": 1.0, "shape accuracy": 1.0}
        return [loss.item(), first, gap(base, control, "edge", n=4), gap(base, control, lambda batch: batch.mask, n=4)]

    torch.set_default_dtype(torch.float64)
    try:
        base = load_base()
        assert base.encoder.conv_in.weight.dtype == torch.float64
        in_float64 = measured(base, load_control("edge", base), load_classifier())
        in_float32 = measured(shipped.base, shipped.controls["edge"], shipped.classifier)
    finally:
        torch.set_default_dtype(torch.float32)
    assert in_float32 == pytest.approx(in_float64, rel=1e-4, abs=1e-6) and in_float64[2] > 0.01


@pytest.mark.parametrize("wrong", [[[1, 2], [3]], [[1.0], 2.0], "ab", None, {1: 2}, 3.0, torch.ones(3, dtype=torch.complex64)])
def test_differences_are_lists_of_numbers(wrong):
    for call in (lambda: paired(wrong), lambda: difference(wrong, [1.0, 2.0]), lambda: difference([1.0, 2.0], wrong)):
        with pytest.raises(Problem, match="give a list of numbers") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_pictures_within_seeds_are_not_counted_as_independent():
    """128 pictures of two seeds would give an interval of 1, while the two seeds give one of 127."""
    seeds = [[0.0] * 128, [10.0] * 128]
    for call in (lambda: paired(seeds), lambda: paired(torch.tensor(seeds)), lambda: difference(seeds, [[0.0] * 128] * 2),
                 lambda: difference(seeds, [0.0, 0.0]), lambda: difference([0.0, 0.0], seeds)):
        with pytest.raises(Problem, match=r"of the shape \(2, 128\); give one number for each .* mean over the pictures"):
            call()
    by_seed = difference([sum(of_seed) / 128 for of_seed in seeds], [0.0, 0.0])
    assert by_seed == pytest.approx((5 - 63.53, 5, 5 + 63.53), abs=0.01)
    assert difference([[1.0], [2.0]], [1.0]) == difference([1.0, 2.0], [1.0])  # a row of one number is that number


def test_a_masked_array_is_no_list_of_numbers():
    with pytest.raises(Problem, match="the differences are masked; give the values that are left"):
        paired(np.ma.masked_array([1.0, 2.0, 100.0], mask=[0, 0, 1]))
    assert paired(np.array([1.0, 2.0])) == paired([1.0, 2.0])


@pytest.mark.parametrize("ends", [(0.3, 0.0, -0.3), (0.0, 0.3, 0.1), (0.2, 0.1, 0.3), (NAN, 0.1, 0.2)])
def test_an_interval_whose_bounds_are_swapped_decides_nothing(ends):
    for call in (lambda: Paired(*ends).verdict, lambda: no_worse(Paired(*ends), 0.1)):
        with pytest.raises(Problem, match="low, mean and high in this order"):
            call()
    assert no_worse(Paired(-0.3, 0.0, 0.3), 0.1) == "undecided"


def test_a_classifier_scores_every_picture(shipped):
    """The scores of one picture would be compared with the prompts of all three."""
    truth, _ = held_out(3)
    for wrong in (lambda mask: shipped.classifier(mask)[:1], lambda mask: shipped.classifier(mask)[:, :3]):
        with pytest.raises(Problem, match="the classifier returned the shape .* let it return 4 scores for each"):
            shapes_right(truth.image, truth.prompt, wrong)


def test_a_mask_of_nan_is_no_shape(shipped):
    with pytest.raises(Problem, match="the masks have values that are not finite"):
        shipped.classifier(torch.full((1, 1, 64, 64), NAN))


def test_arrays_of_numpy_are_refused_in_a_sentence():
    for call in (lambda x: mask_iou(x, x), lambda x: frechet_distance(x, x), lambda x: fingerprint({"x": x})):
        with pytest.raises(Problem, match="are a ndarray; give a tensor"):
            call(np.zeros((2, 1, 64, 64)))
    with pytest.raises(Problem, match="give them by name"):
        fingerprint([torch.zeros(2)])


def test_poses_are_those_of_square_pictures():
    truth, _ = held_out(2)
    with pytest.raises(Problem, match="give square ones"):
        pose_errors(truth.image[..., :48], truth.scenes)


@pytest.mark.parametrize("wrong", [0.5, [0.0, 0.1, 0.2], None])
def test_a_verdict_needs_an_interval(wrong):
    with pytest.raises(Problem, match="the difference is .* give an interval"):
        no_worse(wrong, 0.1)


def test_frechet_distance_of_one_feature():
    """Of two normal distributions on a line: the squared difference of the means and of the deviations."""
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [7.0]])
    assert frechet_distance(a, b) == pytest.approx(3**2 + (2**0.5 - 18**0.5) ** 2)


def test_the_truth_is_a_batch():
    truth, noise = held_out(2)
    with pytest.raises(Problem, match="the first result of held_out"):
        condition_scores("edge", truth.image, (truth, noise))


@pytest.mark.parametrize("change", [{"angle": torch.zeros(1)}, {"centre": torch.zeros(2, 1)},
                                    {"centre": torch.zeros(1, 2)}, {"shape": torch.tensor([-1, -1])},
                                    {"shape": torch.tensor([9, 9])}, {"aspect": torch.zeros(2)}])
def test_poses_are_compared_with_scenes_that_are_complete(batch, change):
    """The angle of one scene was used for all, and shape -1 was a star."""
    with pytest.raises(Problem, match="of a scene is|of the scenes is"):
        pose_errors(batch.image, batch.scenes._replace(**change))


def test_scores_of_nan_choose_no_shape(batch):
    """argmax would take the first shape, so every circle would be right."""
    with pytest.raises(Problem, match="none that is nan"):
        shapes_right(batch.image, batch.prompt, lambda mask: torch.full((len(mask), 4), NAN))


@pytest.mark.parametrize("features", [torch.ones(4, 0), torch.ones(4, 2, dtype=torch.complex64)])
def test_features_are_numbers(features):
    with pytest.raises(Problem, match="the features have the shapes"):
        frechet_distance(features, features)


def test_the_classifier_refuses_masks_in_another_range():
    classifier = load_classifier()
    mask = held_out(2)[0].mask
    for wrong in (mask * 255, mask * 2 - 1):
        with pytest.raises(Problem, match="bring them to"):
            classifier(wrong)


def test_shuffle_gap_leaves_the_conditions_to_the_caller():
    condition = torch.rand(4, 1, 2, 2)
    before = condition.clone()
    shuffle_gap(lambda given: given.mul_(2).mean(), condition)
    assert torch.equal(condition, before)


def test_the_gap_of_another_condition_is_told(shipped):
    with pytest.warns(UserWarning, match="the control is the edge ControlNet"):
        gap(shipped.base, shipped.controls["edge"], "pose", n=2)


@pytest.mark.parametrize("returned", [torch.ones(3), torch.ones(2, 1)])
def test_a_loss_is_one_number(returned):
    with pytest.raises(Problem, match="let it return one number"):
        shuffle_gap(lambda condition: returned, torch.ones(2, 1, 4, 4))
    assert shuffle_gap(lambda condition: condition[0].mean().item(), torch.arange(2.0).view(2, 1, 1, 1)) == 1
