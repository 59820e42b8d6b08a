"""The recorded experiments: arms that are what they say, rulers by known answers."""

import importlib
import importlib.util
import json
import math

import pytest
import torch

from conftest import LESSONS, fill_zeros
from minicontrolnet import (ControlNet, Paired, describe, detect_edges, fingerprint,
                            held_out, random_batch, random_scenes, seeded)

FILES = (LESSONS / "experiments").glob("[0-9][0-9]_*.py")
EXPERIMENTS = sorted(path.stem for path in FILES)


@pytest.fixture
def load(tools):
    """A function from the name of a file in lessons/experiments to its module."""
    tools("--quick")

    def module_of(name):
        if not name[0].isdigit():
            return importlib.import_module(f"experiments.{name}")
        path = LESSONS / "experiments" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"experiments.{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return module_of


# %% As a whole


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_how_it_runs_and_what_it_expected(name, load):
    """It can be imported; its first words have its command and what would refute it."""
    module = load(name)
    said = " ".join(module.__doc__.split())
    assert f"python lessons/experiments/{name}.py" in said
    assert "written down before any number was seen" in said.lower()
    source = (LESSONS / "experiments" / f"{name}.py").read_text(encoding="utf-8")
    assert callable(module.main) and f'options("{name}"' in source


def finite(numbers):
    """Whether all numbers in nested dicts and lists are finite."""
    if isinstance(numbers, (dict, list)):
        values = numbers.values() if isinstance(numbers, dict) else numbers
        return all(map(finite, values))
    return not isinstance(numbers, float) or math.isfinite(numbers)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_in_quick_mode(name, request, lesson_run):
    """All arms, with a few steps each; their record is marked as quick."""
    if not request.config.getoption("--experiments"):
        pytest.skip("runs with --experiments")
    done, folder = lesson_run(f"experiments/{name}")
    assert done.returncode == 0, done.stderr
    left = {path.name for path in (folder / "outputs").iterdir()}
    assert f"{name}_quick.json" in left and all("_quick" in file for file in left)
    path = folder / "outputs" / f"{name}_quick.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["numbers"] and finite(record["numbers"])
    assert {"command", "seed", "steps", "versions"} <= set(record)


def test_a_record_goes_on_after_its_last_arm(load, monkeypatch):
    """Numbers become lists over the seeds; another seed or length begins anew."""
    record, row = load("record"), torch.rand(4, 3, 8, 8)
    first = record.Record(columns=4)
    runs = [{"IoU": 0.5, "gap": {"20": 1.0}}, {"IoU": 0.7, "gap": {"20": 2.0}}]
    first.add("one", runs, row)
    first.add("two", [{"IoU": 0.1}], 1 - row)
    again = record.Record(columns=4)
    assert again.numbers == {"one": {"IoU": [0.5, 0.7], "gap": {"20": [1.0, 2.0]}},
                             "two": {"IoU": [0.1]}}
    assert (again.pictures["one"] - row).abs().max() < 1 / 255
    monkeypatch.setattr(record.args, "steps", 99)
    assert record.Record(columns=4).numbers == {}


# %% The arms


@pytest.mark.parametrize("name", ["zero convs", "N(0, 1/fan_in)", "N(0, 0.02^2)",
                                  "lite"])
def test_the_arms_of_the_ablation_start_as_they_say(name, load, make_base, inputs,
                                                    condition):
    """13 controls of the maps' shapes; only Gaussian convs change the base at once."""
    base, (xt, t, prompt) = make_base((8, 16, 32, 64)), inputs
    arm = seeded(3, load("08_ablations").ARMS[name].build, base).double()
    controls = arm(xt, t, prompt, condition)
    maps = base.encoder(xt, base.embedding(t, prompt))
    assert [c.shape for c in controls] == [h.shape for h in maps]
    same = torch.equal(base(xt, t, prompt, controls), base(xt, t, prompt))
    assert same == (not name.startswith("N(0"))
    std = {"N(0, 1/fan_in)": 64**-0.5, "N(0, 0.02^2)": 0.02}.get(name, 0)
    assert arm.zero_convs[-1].weight.std().item() == pytest.approx(std, rel=0.05)


def test_lite_has_one_conv_in_place_of_each_copied_block(load, make_base):
    """13 of them, and nothing else but the condition encoder and the zero convs."""
    lite = load("networks").Lite(make_base())
    assert len(lite.convs) == len(lite.zero_convs) == 13
    assert {name for name, _ in lite.named_children()} == {
        "convs", "condition_encoder", "zero_convs"}


@pytest.mark.parametrize("how", ["learned", "stacked", "average", "every fourth",
                                 "shifted"])
def test_every_encoder_leads_to_the_grid_and_starts_at_0(how, load):
    """(b, 1, 64, 64) -> (b, c, 16, 16); filled, each one sees the condition."""
    encoder = load("networks").encoder(how, 32)
    edges = detect_edges(held_out(2)[0].image)
    assert encoder(edges).shape == (2, 32, 16, 16) and not encoder(edges).any()
    fill_zeros(encoder)
    assert not torch.isclose(encoder(edges), encoder(0 * edges)).all()


def test_a_random_shift_keeps_the_lines_and_moves_them(load):
    """By up to 4 pixels each way, another way each time."""
    shift, condition = load("networks").RandomShift(), torch.zeros(32, 1, 64, 64)
    condition[:, 0, 20, 30] = 1
    here = torch.tensor([20, 30])
    places = [shift(condition)[:, 0].nonzero()[:, 1:] - here for _ in range(2)]
    assert all(len(place) == 32 and place.abs().max() <= 4 for place in places)
    assert len(torch.cat(places).unique(dim=0)) > 20
    assert not torch.equal(*places)


def test_only_the_middle_and_only_the_condition(load, make_base, inputs, condition):
    """Lesson 11's arms: 12 controls of 0; controls without time and noisy picture."""
    module, (xt, t, prompt) = load("11_users_ask"), inputs
    base = make_base()
    middle = fill_zeros(module.OnlyMiddle(base)).double()(xt, t, prompt, condition)
    assert middle[-1].any() and not any(c.any() for c in middle[:-1])
    alone = fill_zeros(module.ConditionAlone(base)).double()
    others = alone(-xt, t + 9, prompt, condition)
    for a, b in zip(alone(xt, t, prompt, condition), others):
        assert torch.equal(a, b) and a.any()


def test_an_unlocked_decoder_is_a_copy(load, make_base):
    """Training it leaves the base that ships alone; the encoder stays locked."""
    base = make_base()
    pair = load("11_users_ask").ARMS["decoder unlocked"](base)
    asks = lambda module: {p.requires_grad for p in module.parameters()}
    assert asks(pair.base.decoder) == asks(pair.control) == {True}
    assert asks(pair.base.encoder) == asks(pair.base.embedding) == {False}
    own = {p.data_ptr() for p in pair.parameters()}
    assert not own & {p.data_ptr() for p in base.parameters()}


# %% The data


def test_fig_8s_four_kinds_of_prompts(load):
    """Conflicting ones name another shape; insufficient ones tell the ground alone."""
    kinds = load("08_ablations").prompts(torch.tensor([[7, 4, 6]]))
    said = {kind: describe(prompt)[0] for kind, prompt in kinds.items()}
    assert said == {"none": "", "insufficient": "on blue",
                    "conflicting": "red circle on blue", "perfect": "red star on blue"}


def test_in_pairs_each_shape_has_colours_of_its_own(load):
    """Place, size and tilt stay as they were."""
    scenes = random_scenes(64, torch.Generator().manual_seed(0))
    batch = load("08_ablations").in_pairs(scenes)
    assert set(describe(batch.prompt)) == {
        "orange circle on purple", "white square on green", "cyan triangle on red",
        "yellow star on blue"}
    assert torch.equal(batch.scenes.centre, scenes.centre)
    assert torch.equal(batch.x0, 2 * batch.image - 1)


def test_few_pictures_are_of_a_part_of_the_world(load):
    """100 pictures, always the same; what they are tested on is new in what it says."""
    module = load("08_ablations")
    few, seen = module.data("few", seed=0), set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        batch = few(generator)
        seen |= set(zip(batch.image.sum((1, 2, 3)).tolist(), describe(batch.prompt)))
    assert 80 < len(seen) <= 100
    words = lambda prompts: {word for prompt in prompts for word in prompt.split()}
    assert words(prompt for _, prompt in seen) == {
        "circle", "square", "on", "white", "orange", "green", "blue"}
    new = module.part(8, generator, *module.TESTS["new colours and shapes"])
    assert len(new.image) == 8
    assert not words(describe(new.prompt)) & {"circle", "square", "white", "blue"}


def test_few_pictures_are_always_the_same(load):
    """A batch comes from the n pictures alone, image, x0 and prompt together."""
    pictures, seen = load("09_evaluation").only(3), set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        batch = pictures(generator)
        assert torch.equal(2 * batch.image - 1, batch.x0)
        seen |= {(x0.sum().item(), *words.tolist())
                 for x0, words in zip(batch.x0, batch.prompt)}
    assert len(seen) == 3


def test_pale_pictures_are_half_way_to_white(load):
    """x0 of a pale picture is half as far from 1 as it was; unpale leads back."""
    transfer, seed = load("transfer"), lambda: torch.Generator().manual_seed(4)
    pale, plain = transfer.pale_batch(seed()), random_batch(16, seed())
    torch.testing.assert_close(1 - pale.x0, (1 - plain.x0) / 2)
    torch.testing.assert_close(pale.x0, 2 * pale.image - 1)
    torch.testing.assert_close(transfer.unpale(pale.image), plain.image)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6])
def test_erased_is_a_sector_of_the_share_asked_for(share, load):
    """Of a circle around the centre; another one in each picture, and nothing else."""
    line = (torch.arange(64) + 0.5) / 32 - 1
    away = torch.hypot(line - 0.1, line[:, None] + 0.2)
    ring = ((away > 0.4) & (away < 0.6)).float().expand(8, 1, 64, 64)
    rest = load("transfer").erase(ring, torch.tensor([[0.1, -0.2]]).expand(8, 2), share)
    assert ((rest == 0) | (rest == ring)).all()
    gone = 1 - rest.sum((1, 2, 3)) / ring.sum((1, 2, 3))
    assert (gone - share).abs().max() < 0.02
    assert share == 0 or len(rest.unique(dim=0)) == 8


# %% The copy on another base


def test_the_difference_of_two_bases_moves_a_copy(load, make_base):
    """From A to B, an untrained copy of A becomes one of B; what was learned stays."""
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
    assert fingerprint(control.state_dict()) == before  # it is a copy that is moved


# %% Rulers


def test_the_rise_of_a_curve(load):
    """A line is at 10, 50 and 90 % of the way; of a jump all lie in one interval."""
    reached = load("measured").reached
    line = {str(step): 0.3 + step / 200 for step in range(0, 101, 10)}
    shares = (0.1, 0.5, 0.9)
    assert [reached(line, share) for share in shares] == pytest.approx([10, 50, 90])
    jump = {str(step): 0.3 + 0.5 * (step > 50) for step in range(0, 101, 10)}
    low, half, high = (reached(jump, share) for share in shares)
    assert 50 < low < half < high < 60


def test_an_exponential_is_gradual_and_a_jump_is_sudden(load):
    """The ratio is .18 for 1 - exp(-step / tau), .25 for a line, more for a jump."""
    measured = load("measured")
    steps = range(0, 1001)
    curves = [{str(s): 1 - math.exp(-s / 40) for s in steps},
              {str(s): s for s in steps}, {str(s): float(s > 500) for s in steps}]
    ratios = [measured.suddenness(curve) for curve in curves]
    assert ratios[0] == pytest.approx(measured.GRADUAL, rel=0.02)
    assert measured.GRADUAL == pytest.approx(0.179, abs=0.001)
    assert ratios[1] == pytest.approx(0.25, rel=0.01) and ratios[2] > 100


def test_the_onset_is_the_first_step_with_a_gap_of_a_tenth(load):
    """For each seed, of the base's own loss; a dash where it never comes."""
    gap = {"0": [0.0, 0.0, 0.0], "20": [0.019, 0.03, 0.0], "40": [0.021, 0.2, 0.019]}
    assert load("onset").onset(gap, [0.2, 0.2, 0.2]) == ["40", "20", "-"]


def test_no_worse_allows_a_margin(load):
    """The same interval is confirmed, undecided or contradicted by the margin alone."""
    apart, no_worse = Paired(-0.03, -0.02, -0.01), load("measured").no_worse
    assert [no_worse(apart, margin) for margin in (0.04, 0.02, 0.0)] == [
        "confirmed", "undecided", "contradicted"]
