"""The experiments: what they announce, arms that are what they say, and records that show what is printed."""

import importlib
import json
import math
import re
import subprocess
import sys

import pytest
import torch

from conftest import LESSONS, ROOT, fill_zeros
from minicontrolnet import (ControlNet, describe, detect_edges, fingerprint, held_out, random_batch, random_scenes,
                            seeded)

sys.path.insert(0, str(LESSONS))
from lesson.networks import Lite, RandomShift

SHARED = {"common", "networks", "transfer", "worlds", "catalogue"}
EXPERIMENTS = sorted(path.stem for path in (LESSONS / "experiments").glob("*_*.py") if not path.stem[0].isdigit())
RECORDS = sorted(name for name in EXPERIMENTS if (LESSONS / "results" / f"{name}.json").is_file())


def load(name):
    return importlib.import_module(f"experiments.{name}")


def record_of(name):
    return json.loads((LESSONS / "results" / f"{name}.json").read_text(encoding="utf-8"))


# %% As a whole


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_announces_what_would_refute_it(name):
    """Its first words are a question; then come its command, and what was written down before it ran."""
    said = " ".join(load(name).__doc__.split())
    assert f"python lessons/experiments/{name}.py" in said and "?" in said or name.startswith("claims_13")
    assert re_any(("written down before", "refuted"), said.lower()) and callable(load(name).findings)


def re_any(words, text):
    return any(word in text for word in words)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_shows_what_its_findings_say(name):
    """The findings in the file are those that the experiment computes from the numbers in the file."""
    record = record_of(name)
    assert record["command"] == f"python lessons/experiments/{name}.py"
    found = load(name).findings(record["numbers"])
    assert record["findings"].keys() == found.keys()
    for key, values in found.items():
        assert record["findings"][key] == pytest.approx(values, abs=1e-6), key


def test_the_list_of_experiments_has_the_minutes_of_their_records():
    """And their sum, to 5 minutes; five hours are the limit. Two old records have no minutes."""
    page = (LESSONS / "experiments" / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"\| \[(\w+)\]\(\w+\.py\) \| ((?:about )?\d+) \|$", page, re.M))
    assert sorted(told) == RECORDS
    for name, minutes in told.items():
        if "about" not in minutes:
            assert max(1, round(sum(record_of(name)["minutes"].values()))) == int(minutes), name
    total = sum(int(minutes.removeprefix("about ")) for minutes in told.values())
    stated, = re.findall(r"take about (\d+) minutes", page)
    assert abs(total - int(stated)) <= 5 and total < 300


def finite(numbers):
    """Whether all numbers in nested dicts and lists are finite."""
    if isinstance(numbers, (dict, list)):
        return all(map(finite, numbers.values() if isinstance(numbers, dict) else numbers))
    return math.isfinite(numbers)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_in_quick_mode(name, tmp_path):
    """All parts, with a few steps each; run again it finds everything in its record."""
    command = [sys.executable, str(LESSONS / "experiments" / f"{name}.py"), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    path = tmp_path / f"{name}_quick.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["numbers"] and finite(record["numbers"])
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert json.loads(path.read_text(encoding="utf-8"))["numbers"] == record["numbers"], again.stdout


def test_a_record_goes_on_after_its_last_seed(tmp_path):
    """Scores become lists over the seeds, also in nested dicts; missing() names the seeds that are left."""
    common = load("common")
    first = common.Record("toy", tmp_path, quick=False)
    first.add("part", "arm", {"IoU": 0.5, "none": {"IoU": 0.1}})
    first.add_pictures("arm", torch.rand(4, 3, 8, 8))
    again = common.Record("toy", tmp_path, quick=False)
    assert again.missing("arm", range(7, 10)) == [8, 9] and again.missing("other", range(2)) == [0, 1]
    again.add("part", "arm", {"IoU": 0.7, "none": {"IoU": 0.2}})
    again.add_pictures("other", torch.rand(4, 3, 8, 8))
    assert again.numbers == {"arm": {"IoU": [0.5, 0.7], "none": {"IoU": [0.1, 0.2]}}}
    assert json.loads((tmp_path / "toy.json").read_text())["rows of pictures"] == ["arm", "other"]
    assert common.minus([1.0, 2.0], [0.5]) == [0.5, 1.5] and common.minus([1.0], [0.5, 0.0]) == [0.5, 1.0]


# %% The arms


@pytest.mark.parametrize("name", ["zero convs", "N(0, 1/fan_in)", "N(0, 0.02^2)", "lite"])
def test_the_arms_of_fig_8_start_as_they_say(name, make_base, inputs, condition):
    """13 controls with the shapes of the maps; only Gaussian convolutions change the base at once."""
    base, (xt, t, prompt) = make_base((8, 16, 32, 64)), inputs
    arm = seeded(3, load("claims_13_14_16_17_figure_8").ARMS[name], base).double()
    controls = arm(xt, t, prompt, condition)
    maps = base.encoder(xt, base.embedding(t, prompt))
    assert [control.shape for control in controls] == [h.shape for h in maps]
    same = torch.equal(base(xt, t, prompt, controls), base(xt, t, prompt))
    assert same == (not name.startswith("N(0"))
    std = {"N(0, 1/fan_in)": 64**-0.5, "N(0, 0.02^2)": 0.02}.get(name, 0)
    assert arm.zero_convs[-1].weight.std().item() == pytest.approx(std, rel=0.05)


def test_a_start_of_another_size(make_base):
    """Claim 9: a multiple of 1 / sqrt(fan_in), for all zero convolutions, and exactly 0 for 0."""
    start, base = load("claim_09_sudden_convergence").start, make_base((8, 16, 32, 64))
    one, tenth, zero = (seeded(0, start, base, size) for size in (1, 0.1, 0))
    assert tenth.zero_convs[3].weight.std().item() == pytest.approx(0.1 * one.zero_convs[3].weight.std().item())
    assert not any(conv.weight.any() for conv in zero.zero_convs)


def test_lite_has_one_conv_in_the_place_of_each_copied_block(make_base):
    lite = Lite(make_base())
    assert len(lite.convs) == len(lite.zero_convs) == 13
    assert {name for name, _ in lite.named_children()} == {"convs", "condition_encoder", "zero_convs"}


def test_a_random_shift_keeps_the_lines_and_moves_them():
    """By up to 4 pixels in each direction, and differently each time."""
    shift, condition = RandomShift(), torch.zeros(32, 1, 64, 64)
    condition[:, 0, 20, 30] = 1
    here = torch.tensor([20, 30])
    places = [shift(condition)[:, 0].nonzero()[:, 1:] - here for _ in range(2)]
    assert all(len(place) == 32 and place.abs().max() <= 4 for place in places)
    assert len(torch.cat(places).unique(dim=0)) > 20 and not torch.equal(*places)


def test_only_the_middle_and_only_the_condition(make_base, inputs, condition):
    """12 controls of 0; controls that depend on neither time nor noisy picture."""
    module, (xt, t, prompt), base = load("users_variants"), inputs, make_base()
    middle = fill_zeros(module.OnlyMiddle(base)).double()(xt, t, prompt, condition)
    assert middle[-1].any() and not any(control.any() for control in middle[:-1])
    alone = fill_zeros(module.ConditionAlone(base)).double()
    others = alone(-xt, t + 9, prompt, condition)
    for a, b in zip(alone(xt, t, prompt, condition), others):
        assert torch.equal(a, b) and a.any()


def test_an_unlocked_decoder_is_a_copy(make_base):
    """Training it leaves the shipped base alone; the encoder stays locked."""
    base = make_base()
    pair = load("users_variants").ARMS["decoder unlocked"](base)

    def asks(module):
        return {parameter.requires_grad for parameter in module.parameters()}

    assert asks(pair.base.decoder) == asks(pair.control) == {True}
    assert asks(pair.base.encoder) == asks(pair.base.embedding) == {False}
    own = {parameter.data_ptr() for parameter in pair.parameters()}
    assert not own & {parameter.data_ptr() for parameter in base.parameters()}


def test_two_controlnets_share_a_condition_of_four_channels(make_base, inputs):
    """The edge ControlNet sees the first channel and the palette's sees the other three."""
    base, (xt, t, prompt) = make_base(), inputs
    two = fill_zeros(load("users_two_conditions").joint(base)).double()
    condition = torch.rand(len(xt), 4, *xt.shape[2:], dtype=torch.float64)
    apart = zip(two.edge(xt, t, prompt, condition[:, :1]), two.colours(xt, t, prompt, condition[:, 1:]))
    for control, (a, b) in zip(two(xt, t, prompt, condition), apart):
        torch.testing.assert_close(control, a + b)


# %% The data


def test_fig_8s_four_kinds_of_prompts():
    """Conflicting ones name another shape; insufficient ones name the background only."""
    kinds = load("claims_13_14_16_17_figure_8").prompts(torch.tensor([[7, 4, 6]]))
    said = {kind: describe(prompt)[0] for kind, prompt in kinds.items()}
    assert said == {"none": "", "insufficient": "on blue", "conflicting": "red circle on blue",
                    "perfect": "red star on blue"}


def test_in_pairs_each_shape_has_colours_of_its_own():
    """Place, size and tilt stay as they were."""
    scenes = random_scenes(64, torch.Generator().manual_seed(0))
    batch = load("worlds").in_pairs(scenes)
    assert set(describe(batch.prompt)) == {"orange circle on purple", "white square on green", "cyan triangle on red",
                                           "yellow star on blue"}
    assert torch.equal(batch.scenes.centre, scenes.centre) and torch.equal(batch.x0, 2 * batch.image - 1)


def test_a_part_of_the_world_has_its_shapes_and_colours_only():
    worlds = load("worlds")
    few = worlds.part_of_the_world(8, torch.Generator().manual_seed(0), *worlds.NEW_COLOURS_AND_SHAPES)
    words = {word for prompt in describe(few.prompt) for word in prompt.split()}
    assert len(few.image) == 8 and words <= {"triangle", "star", "on", *worlds.NEW}


def test_few_pictures_are_always_the_same_and_another_draw_has_others():
    """A batch comes from the n pictures alone: image, x0 and prompt together."""
    only = load("claim_19_few_pictures").only

    def pictures_of(draw):
        generator, seen = torch.Generator().manual_seed(0), set()
        for _ in range(6):
            batch = only(3, draw)(generator)
            assert torch.equal(2 * batch.image - 1, batch.x0)
            seen |= {(x0.sum().item(), *words.tolist()) for x0, words in zip(batch.x0, batch.prompt)}
        return seen

    assert len(pictures_of(1)) == 3 and not pictures_of(1) & pictures_of(2)


def test_pale_pictures_are_half_way_to_white():
    transfer = load("transfer")
    pale, plain = (make(torch.Generator().manual_seed(4)) for make in (
        transfer.pale_batch, lambda generator: random_batch(16, generator)))
    torch.testing.assert_close(1 - pale.x0, (1 - plain.x0) / 2)
    torch.testing.assert_close(pale.x0, 2 * pale.image - 1)
    torch.testing.assert_close(transfer.unpale(pale.image), plain.image)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_erased_is_a_sector_of_the_share_asked_for(share):
    """Of a circle around the centre; another one in each picture, and nothing else."""
    line = (torch.arange(64) + 0.5) / 32 - 1
    away = torch.hypot(line - 0.1, line[:, None] + 0.2)
    ring = ((away > 0.4) & (away < 0.6)).float().expand(8, 1, 64, 64)
    rest = load("transfer").erase(ring, torch.tensor([[0.1, -0.2]]).expand(8, 2), share)
    assert ((rest == 0) | (rest == ring)).all()
    gone = 1 - rest.sum((1, 2, 3)) / ring.sum((1, 2, 3))
    assert (gone - share).abs().max() < 0.02
    assert share == 0 or len(rest.unique(dim=0)) == 8


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_deleted_cells_are_the_share_asked_for(share):
    full = torch.ones(64, 1, 64, 64)
    rest = load("users_fewer_edges").delete(full, share)
    assert rest.mean().item() == pytest.approx(1 - share, abs=0.02)


def test_the_difference_of_two_bases_moves_a_copy(make_base):
    """From A to B, an untrained copy of A becomes one of B, and what was learned stays."""
    moved, a, b = load("transfer").moved, make_base(), make_base(seed=1)
    copied = moved(ControlNet(a), a, b)
    for part in ("encoder", "embedding"):
        for name, weight in getattr(b, part).state_dict().items():
            torch.testing.assert_close(getattr(copied, part).state_dict()[name], weight)
    control = fill_zeros(ControlNet(a))
    with torch.no_grad():
        control.encoder.conv_in.weight += 0.3
    before = fingerprint(control.state_dict())
    learned = moved(control, a, b).encoder.conv_in.weight - b.encoder.conv_in.weight
    torch.testing.assert_close(learned, torch.full_like(learned, 0.3))
    assert fingerprint(moved(control, a, a).state_dict()) == before
    assert fingerprint(control.state_dict()) == before  # a copy is moved, not the original


# %% Measures


def test_recall_counts_the_edges_that_a_picture_has():
    """All of its own edges, and few of another picture's."""
    truth, _ = held_out(4)
    edges, recall = detect_edges(truth.image), load("claim_20_ambiguous_outlines").recall
    assert recall(truth.image, edges).tolist() == [1.0] * 4
    assert recall(truth.image, edges.roll(1, 0)).max() < 0.6


def test_readings_are_shapes_that_were_named_twice():
    readings = load("claim_20_ambiguous_outlines").readings
    assert readings([[8, 0, 0, 0], [5, 2, 1, 0], [1, 1, 1, 1]]) == [1.0, 2.0, 0.0]


def test_a_judge_who_guesses_is_right_half_of_the_time():
    judge = load("claim_18_fine_tuned_rival").judge
    assert judge([0.1, 0.9], [0.5, 0.5]) == 0.5 and judge([0.1], [0.2]) == 1.0 and judge([0.2], [0.2]) == 0.5


def test_a_judge_of_single_pictures_learns_on_one_half_and_is_tested_on_the_other():
    """Two sides that a threshold separates, either way round; two equal sides; and a rule that holds in one half only."""
    judge = load("claim_18_fine_tuned_rival").single_picture_judge
    low, high = [0.1, 0.2, 0.3, 0.3], [0.7, 0.7, 0.8, 0.9]
    assert judge(low, high) == judge(high, low) == 1.0
    assert judge([0.5] * 4, [0.5] * 4) == 0.5
    assert judge([0.1, 0.9, 0.1, 0.9], [0.9, 0.1, 0.9, 0.1]) == 0.0


def test_the_step_at_which_a_gap_is_reached():
    """On the straight line between two measured steps; a gap that is never reached gets the last step."""
    first_above = load("claim_09_sudden_convergence").first_above
    curve = {"0": 0.01, "10": 0.0, "20": 0.004, "30": 0.002}
    assert first_above(curve, 0.003) == pytest.approx(17.5) and first_above(curve, 0.005) == 30


def test_colours_at_a_level_of_fidelity():
    """On the straight line between the tests before and after, from IoU 0 and all colours at the start."""
    at_level = load("forgetting_at_equal_fidelity").at_level
    curve = {"step 10": {"IoU": [0.5], "right colours": [1.0]}, "step 20": {"IoU": [0.7], "right colours": [0.5]}}
    assert at_level(curve, 0, 0.6) == pytest.approx(0.75) and at_level(curve, 0, 0.8) is None
