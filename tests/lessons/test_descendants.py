"""The relatives of ControlNet: exact starts, an untouched base, shapes, and each paper's own choice."""

import copy
import importlib
import importlib.util
import re
import math
import statistics
import sys
from types import SimpleNamespace

import pytest
import torch

from conftest import LESSONS, fill_zeros
from minicontrolnet import (ControlNet, describe, detect_edges, held_out, load_base, mask_iou, mask_of,
                            random_batch, seeded)

sys.path.append(str(LESSONS))

from lesson import descendants as methods  # noqa: E402
from lesson import load_results  # noqa: E402
from lesson import record_12 as saying  # noqa: E402

BUILD = {
    "ControlNet": methods.controlnet,
    "Control-LoRA": methods.control_lora,
    "frozen copy": methods.frozen_copy,
    "T2I-Adapter": methods.T2IAdapter,
    "ControlNet-XS": methods.ControlNetXS,
    "ControlNeXt": methods.ControlNeXt,
    "fine-tuned base": methods.FineTuned,
}
STARTS_AT_THE_BASE = ["ControlNet", "Control-LoRA", "frozen copy", "ControlNet-XS", "fine-tuned base"]
LEAVES_THE_BASE = ["ControlNet", "Control-LoRA", "frozen copy", "T2I-Adapter", "ControlNet-XS"]
every_method = pytest.mark.parametrize("name", BUILD)


def build(name, base):
    return seeded(3, BUILD[name], base).double()


def trained(method):
    """A method as after some training: what starts at 0 is random."""
    trainable = [p for p in method.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in trainable:
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return method


# %% Start, end, and what is left of the base


@every_method
def test_a_start_is_exactly_the_base_where_the_docstring_claims_it(name):
    """On the base that ships, whose output layer is not 0, and bit for bit."""
    base = load_base()
    truth, noise = held_out(2)
    inputs = noise, torch.tensor([300, 700]), truth.prompt
    moved = seeded(3, BUILD[name], base)(base, *inputs, detect_edges(truth.image)) - base(*inputs)
    assert bool(moved.any()) == (name not in STARTS_AT_THE_BASE)
    start = (BUILD[name].__doc__ if name != "ControlNet" else methods.Beside.__doc__).split("Start: ")[1]
    assert start.startswith("exactly the base") == (name in STARTS_AT_THE_BASE)


@every_method
def test_after_training_the_condition_counts(name, base, inputs, condition):
    method = trained(build(name, base))
    with_own = method(base, *inputs, condition)
    assert with_own.shape == inputs[0].shape and with_own.dtype == torch.float64
    assert not torch.allclose(with_own, method(base, *inputs, condition.flip(3)))
    assert not torch.allclose(with_own, method(base, *inputs))


@every_method
def test_without_a_condition_a_locked_base_is_the_base_exactly(name, base, inputs):
    method = trained(build(name, base))
    same = torch.equal(method(base, *inputs), base(*inputs))
    assert same == (name in LEAVES_THE_BASE)


@every_method
def test_a_training_step_leaves_the_base_and_trains_what_the_docstring_names(name, base, inputs, condition):
    before = copy.deepcopy(base.state_dict())
    method = trained(build(name, base))
    method(base, *inputs, condition).square().mean().backward()
    assert all(torch.equal(before[key], value) for key, value in base.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in base.parameters())
    assert not {id(p) for p in base.parameters()} & {id(p) for p in method.parameters()}
    for p in method.parameters():
        assert (p.grad is not None) == p.requires_grad


@every_method
def test_another_controlnets_controls_are_added(name, base, inputs, condition):
    method = trained(build(name, base))
    other = fill_zeros(ControlNet(base).double(), seed=7)
    controls = other(*inputs, condition)
    both = method(base, *inputs, condition, controls)
    assert not torch.allclose(both, method(base, *inputs, condition))
    if name in LEAVES_THE_BASE:
        assert torch.equal(method(base, *inputs, None, controls), base(*inputs, controls))
    nothing = tuple(torch.zeros_like(control) for control in controls)
    assert torch.equal(method(base, *inputs, condition, nothing), method(base, *inputs, condition))


# %% What is special about each


def test_control_lora_changes_each_weight_by_a_matrix_of_its_rank(base):
    method = trained(methods.control_lora(base, rank=2).double())
    copied = method.control.encoder.blocks[0].conv1
    difference = copied.weight - base.encoder.blocks[0].conv1.weight
    assert torch.linalg.matrix_rank(difference.flatten(1)) == 2
    small, full = (sum(p.numel() for p in build(name, base).parameters() if p.requires_grad)
                   for name in ("Control-LoRA", "ControlNet"))
    assert small < full / 2


def test_in_a_frozen_copy_only_the_14_zero_convs_learn(base):
    method = methods.frozen_copy(base)
    convs = {name.rsplit(".", 1)[0] for name, p in method.named_parameters() if p.requires_grad}
    assert len(convs) == 14
    assert all(not p.any() for p in method.parameters() if p.requires_grad)


def test_t2i_adapter_reads_the_condition_once_per_picture(base, inputs, condition, monkeypatch):
    method = build("T2I-Adapter", base)
    once = method.features(condition)
    channels = [base.encoder.channels[join] for join in method.JOINS]
    assert [tuple(h.shape[1:]) for h in once] == [(c, h, h) for c, h in zip(channels, (8, 4, 2, 1))]
    whole = method(base, *inputs, condition)
    monkeypatch.setattr(method, "features", lambda condition: once)
    assert torch.equal(method(base, *inputs, condition), whole)


def test_cubic_times_prefer_noisy_pictures():
    t = methods.cubic_times(torch.arange(1000))
    assert t.min() in (0, 1) and t.max() == 999
    assert (t > 500).float().mean() == pytest.approx(0.5 ** (1 / 3), abs=0.01)


def test_controlnet_xs_hears_the_base_after_every_layer(base, inputs, condition):
    """A change in the base's last block reaches the controller within the same step."""
    method = trained(build("ControlNet-XS", base))
    heard = []
    method.to_base[-1].register_forward_pre_hook(lambda layer, inputs: heard.append(inputs[0]))
    method(base, *inputs, condition)
    other = copy.deepcopy(base)
    with torch.no_grad():
        other.encoder.blocks[-1].conv2.weight += 1
    method(other, *inputs, condition)
    assert not torch.allclose(*heard)


def test_cross_normalisation_gives_the_main_branchs_mean_and_spread():
    generator = torch.Generator().manual_seed(0)
    control = 5 + 3 * torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    main = -1 + 0.5 * torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    aligned = methods.cross_normalise(control, main)
    for i in range(2):
        assert aligned[i].mean() == pytest.approx(main[i].mean().item(), abs=1e-9)
        assert aligned[i].std() == pytest.approx(main[i].std().item(), rel=1e-5)
    assert torch.allclose(aligned, methods.cross_normalise(10 * control - 7, main), atol=1e-4)


def test_controlnext_leaves_the_first_skips_alone(base, inputs, condition, monkeypatch):
    method = build("ControlNeXt", base)
    seen = []
    monkeypatch.setattr(methods, "decode", lambda unet, maps, *rest: seen.append(maps) or maps[-1])
    method(base, *inputs, condition)
    method(base, *inputs)
    changed = [not torch.equal(on, off) for on, off in zip(*seen)]
    assert changed == [False] * (method.JOIN + 1) + [True] * (12 - method.JOIN)


# %% Losses and sampling


def loss_of(name, base, **options):
    """The loss of an untrained method on a batch of four."""
    loss = methods.following_loss(base, lambda generator: random_batch(4, generator), **options)
    return loss(seeded(3, BUILD[name], base), torch.Generator().manual_seed(0)).item()


def test_all_methods_see_the_same_batches():
    """They start at the base, so their first loss is the same number."""
    base = load_base()
    losses = [loss_of(name, base) for name in STARTS_AT_THE_BASE]
    assert losses == [losses[0]] * len(losses) and losses[0] > 0


def test_the_reward_is_added_with_its_weight_at_cleaner_times_alone(monkeypatch):
    base = load_base()
    plain, once, twice = (loss_of("ControlNet", base, reward=reward) for reward in (0.0, 1.0, 2.0))
    assert once > plain and twice - plain == pytest.approx(2 * (once - plain), rel=1e-4)
    monkeypatch.setattr(methods, "random_times_and_noise", lambda x0, generator: (
        torch.full((len(x0),), 900), torch.randn(x0.shape, generator=generator)))
    assert loss_of("ControlNet", base, reward=5.0) == loss_of("ControlNet", base)


def test_the_edge_loss_is_lower_for_the_own_picture():
    truth = random_batch(8, torch.Generator().manual_seed(1))
    edges = detect_edges(truth.image)
    assert (methods.edge_loss(truth.x0, edges) < methods.edge_loss(truth.x0.roll(1, 0), edges)).all()


def test_training_free_guidance_moves_eps_by_its_share(base, inputs, condition):
    xt, t, prompt = inputs
    with torch.no_grad():
        eps = base(*inputs)
        moved = methods.edge_guided(base, prompt, condition, strength=0.25)(xt, t) - eps
    share = moved.flatten(1).norm(dim=1) / eps.flatten(1).norm(dim=1)
    assert torch.allclose(share, torch.full_like(share, 0.25))
    assert not moved.requires_grad and not xt.requires_grad


def test_training_free_guidance_finds_the_outline():
    """The mean IoU of four pictures; with strength 0 they are the base's own."""
    base = load_base()
    truth, noise = held_out(4)
    iou = {}
    for strength in (0.0, 0.3):
        model = methods.edge_guided(base, truth.prompt, detect_edges(truth.image), strength)
        images = methods.generate(model, noise, steps=12)
        iou[strength] = mask_iou(mask_of(images), truth.mask).mean()
    assert iou[0.3] > iou[0.0] + 0.2


def test_a_locked_method_without_guidance_by_words_is_plain_sampling(base, inputs, condition):
    """The unconditional branch has no control, and words enter by guidance alone."""
    xt, t, prompt = inputs
    method = trained(build("ControlNet", base))
    model = methods.guided_by(base, method, prompt, condition, guidance_scale=1)
    assert torch.equal(model(xt, t), method(base, *inputs, condition))
    model = methods.guided_by(base, method, prompt, condition, guidance_scale=0)
    assert torch.equal(model(xt, t), base(xt, t, 0 * prompt))


# %% Another device: a tensor on "meta" has no values, and meets no tensor of the CPU


@pytest.fixture(scope="module")
def elsewhere():
    """The base that ships, on another device than the CPU."""
    return load_base().to("meta")


@every_method
def test_a_method_is_made_and_trained_where_its_base_is(name, elsewhere):
    """Batches are made on the CPU, and the loss moves them."""
    method = seeded(3, BUILD[name], elsewhere)
    assert {tensor.device.type for tensor in method.state_dict().values()} == {"meta"}
    for options in ({}, {"cubic": True}, {"reward": 1.0}):
        loss = methods.following_loss(elsewhere, methods.seen_batch, **options)
        value = loss(method, torch.Generator().manual_seed(0))
        assert value.device.type == "meta"
        value.backward()


@every_method
def test_a_method_samples_where_its_base_is(name, elsewhere):
    method = seeded(3, BUILD[name], elsewhere)
    truth, noise = held_out(2)
    edges, noise, prompt = (tensor.to("meta") for tensor in (detect_edges(truth.image), noise, truth.prompt))
    models = [methods.guided_by(elsewhere, method, prompt, edges), methods.control_off(elsewhere, method, prompt),
              methods.edge_guided(elsewhere, prompt, edges)]
    for model in models:
        assert model(noise, torch.full((2,), 500, device="meta")).device.type == "meta"


# %% The record


@pytest.fixture
def experiment():
    path = LESSONS / "experiments" / "12_descendants.py"
    spec = importlib.util.spec_from_file_location("experiments.12_descendants", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_arm_and_seed_is_trained_to_each_stage_once(experiment):
    """The smoke run trains all arms as well."""
    runs = list(experiment.plan(experiment.Effort()))
    assert len(runs) == len(set(runs))
    main = [name for name, arm in experiment.ARMS.items() if not arm.ablation]
    assert {run for run in runs if run[2] == 2000} == {(name, seed, 2000) for name in main for seed in range(3)}
    assert {run for run in runs if run[2] == 600} == {(name, seed, 600) for name in experiment.ARMS for seed in range(3)}
    assert {name for name, _, _ in experiment.plan(experiment.SMOKE)} == set(experiment.ARMS)


def test_a_record_holds_lists_in_the_order_of_the_seeds_and_continues(experiment, tmp_path):
    """Scores that arrive in another order are sorted, and a new Record reads what the last one saved."""
    lesson = SimpleNamespace(path=lambda ending, which="": tmp_path / f"x{which}{ending}",
                             save_results=lambda *args: saved.append(args))
    saved = []
    record = experiment.Record(lesson)
    record.costs = {"late": {"trained": 2}, "early": {"trained": 1}}
    picture = torch.rand(4, 3, 8, 8)
    for seed in (1, 0, 2):
        record.add(seed, {"right": {"F1": float(seed)}}, picture, "early", "600")
    record.add(0, {"right": {"F1": 5.0}}, 1 - picture, "late", "600")
    numbers, pictures, columns = saved[-1]
    assert numbers["early"]["600"]["right"]["F1"] == [0.0, 1.0, 2.0] and list(numbers) == ["late", "early"]
    assert torch.equal(pictures, torch.cat([1 - picture, picture])) and columns == 4
    assert experiment.Record(lesson).done == record.done


def test_training_pictures_have_four_colours_and_the_others_are_new():
    batch = methods.seen_batch(torch.Generator().manual_seed(0))
    words = " ".join(describe(batch.prompt)).split()
    assert len(batch.image) == 16 and not set(words) & set(methods.NEW)
    new = methods.part_of_world(8, torch.Generator().manual_seed(0), methods.NEW)
    assert not set(" ".join(describe(new.prompt)).split()) & set(methods.SEEN)


def test_what_reads_the_outline_alone_is_counted_apart(experiment, base):
    for name, build in BUILD.items():
        experiment.read_outline(seeded(0, build, base).double(), torch.zeros(1, 1, 32, 32, dtype=torch.float64))


# %% What the record says, and what the page says about it


@pytest.mark.parametrize("differences, verdict", [
    ([0.1, 0.11, 0.12], "shown"), ([-0.1, -0.11, -0.12], "refuted"), ([0.1, -0.1, 0.0], "undecided"),
    ([0.1], "undecided")])
def test_a_part_is_judged_by_its_interval(differences, verdict):
    assert saying.Part("one minus other", differences).verdict == verdict


def test_an_expectation_needs_all_of_its_parts():
    shown, refuted, undecided = (saying.Part(name, values) for name, values in {
        "shown": [1.0, 1.1, 1.2], "refuted": [-1.0, -1.1, -1.2], "undecided": [1.0, -1.0, 0.1]}.items())
    assert saying.Expectation("", [shown, shown]).verdict == "shown"
    assert saying.Expectation("", [shown, undecided]).verdict == "undecided"
    both = saying.Expectation("", [shown, undecided, refuted])
    assert both.verdict == "refuted" and both.decided_by is refuted


def made_up(f1, trained=100, step=200.0, once=0.0, moved=0.0):
    """A method's part of a record, with the same score everywhere."""
    scores = {"F1": [f1] * 3, "IoU": [f1] * 3, "colours": [f1] * 3, "palette error": [f1] * 3}
    look = dict.fromkeys(("right", "none", "conflicting", "new colours", "with palette"), scores)
    look["off"] = {"eps moved": [moved] * 3, "colours": [f1] * 3}
    cost = {"trained": trained, "MFLOP to train": 1.0, "MFLOP to sample": step, "of which once a picture": once}
    return {"cost": cost, "150": look, "600": look}


def test_the_best_rate_is_the_one_with_the_largest_f1():
    rates = {"ControlNet at 0.002": made_up(0.9), "ControlNet at 0.0005": made_up(0.3), "ControlNet++ at 0.004": made_up(1)}
    by_rate = saying.at_each_rate({"ControlNet": made_up(0.8)}, rates, "ControlNet")
    assert list(by_rate) == [0.0005, 0.001, 0.002] and saying.best_rate(by_rate) == 0.002
    _, row = saying.rate_table({"ControlNet": made_up(0.8)}, {name: rates[name] for name in list(rates)[:2]})
    assert row == ["ControlNet", "0.300", "0.800", "0.900", "0.002", "0.90", "0.90", "90%"]


@pytest.fixture(scope="module")
def record():
    return load_results("12_descendants")["numbers"]


def test_the_experiment_lists_the_expectations_that_the_page_judges(record, experiment):
    numbered = [line[0] for line in experiment.__doc__.splitlines() if line[1:3] == ". "]
    assert numbered == [expectation.says[0] for expectation in saying.expectations(record)] == list("123456789")


def mean(record, name, step, prompt="right", score="F1"):
    return statistics.fmean(saying.values(record, name, step, prompt, score))


def test_the_page_says_of_our_expectations_what_their_intervals_say(record):
    said = {expectation.says[0]: expectation.verdict for expectation in saying.expectations(record)}
    assert said == {"1": "refuted", "2": "shown", "3": "shown", "4": "shown", "5": "shown", "6": "undecided",
                    "7": "refuted", "8": "undecided", "9": "undecided"}
    ordering = {part.says: part.verdict for part in saying.expectations(record)[0].parts}
    assert ordering["ControlNeXt minus ControlNet"] == "refuted"
    early = saying.minus(record["ControlNeXt, early join"]["600"]["right"]["F1"],
                         record["ControlNeXt"]["600"]["right"]["F1"])
    assert saying.Part("the early join minus the late one", early).verdict == "shown"


def test_what_the_page_says_of_600_and_of_2000_steps(record):
    """All but ControlNeXt are near ControlNet; later all are nearer, and the fine-tuned base has forgotten more."""
    behind = {step: {name: mean(record, "ControlNet", step) - mean(record, name, step) for name in saying.TRAINED}
              for step in saying.LATE}
    assert [name for name, value in behind["600"].items() if value > 0.05] == ["ControlNeXt"]
    assert mean(record, "ControlNeXt", "600") > mean(record, saying.FLOOR, "600")
    assert max(behind["2000"].values()) < max(behind["600"].values()) / 2
    for name in saying.TRAINED:
        below = saying.minus(record["ControlNet"]["2000"]["right"]["F1"], record[name]["2000"]["right"]["F1"])
        far = min(below) > 0.005 and saying.Part("", below).verdict == "shown"
        assert far == (name in ("ControlNeXt", "T2I-Adapter")), name
    adapter = record["T2I-Adapter"]["2000"]["conflicting"]["F1"]
    for name in ("ControlNet", "Control-LoRA", "ControlNet-XS"):
        early, late = (record[name][step]["conflicting"]["F1"] for step in saying.LATE)
        assert saying.Part("better than early", saying.minus(late, early)).verdict == "shown"
        assert saying.Part("below T2I-Adapter", saying.minus(adapter, late)).verdict == "shown"
    forgotten = saying.minus(*(record["fine-tuned base"][step]["off"]["colours"] for step in saying.LATE))
    assert saying.Part("", forgotten).verdict == "shown"
    changing = [name for name in saying.TRAINED if not saying.keeps_the_base(record, name)]
    assert changing == ["ControlNeXt", "fine-tuned base"]


def test_a_picture_of_a_trained_method_takes_12_steps_with_two_evaluations():
    record = {"no control": made_up(0, step=100.0), "T2I-Adapter": made_up(0, step=130.0, once=30.0),
              "training-free, 25 steps": made_up(0, step=200.0)}
    assert saying.cost_of_a_picture(record, "T2I-Adapter") == 12 * (100 + 100) + 30
    assert saying.cost_of_a_picture(record, "training-free, 25 steps") == 25 * 200


def test_the_record_and_the_table_sample_in_equally_many_steps(experiment):
    assert experiment.Effort().ddim_steps == saying.SAMPLING_STEPS
    assert tuple(saying.FREE.values()) == experiment.FREE_STEPS


def test_what_the_page_says_of_costs(record):
    """194 more for each step; free is cheap in 12 steps and costs most in 25; a tenth and an eighth of the weights."""
    assert round(record["no control"]["cost"]["MFLOP to sample"]) == 194
    picture = {name: saying.cost_of_a_picture(record, name) for name in (*saying.TRAINED, *saying.FREE)}
    adapter = picture["T2I-Adapter"]
    assert 0.8 < picture["training-free, 12 steps"] / picture["ControlNet"] < 0.9
    assert picture["training-free, 12 steps"] == pytest.approx(adapter, rel=0.02)
    assert max(picture, key=picture.get) == "training-free, 25 steps"
    assert picture["training-free, 25 steps"] == pytest.approx(2 * adapter, rel=0.05)
    for name in ("ControlNeXt", "ControlNet-XS"):
        assert picture[name] == pytest.approx(adapter, rel=0.02)
    closeness = saying.minus(record["ControlNet"]["600"]["right"]["F1"], record["training-free, 12 steps"]["0"]["right"]["F1"])
    assert saying.Part("12 steps follow less closely", closeness).verdict == "shown"
    trained = {name: record[name]["cost"]["trained"] / record["ControlNet"]["cost"]["trained"] for name in saying.TRAINED}
    assert trained["Control-LoRA"] == pytest.approx(1 / 10, rel=0.05)
    assert trained["ControlNet-XS"] == pytest.approx(1 / 8, rel=0.08)


def test_the_table_of_verdicts_lists_the_part_that_decides(record):
    _, *rows = saying.verdicts(record)
    for expectation, head, part in zip(saying.expectations(record), rows[::2], rows[1::2], strict=True):
        assert head == [expectation.says[0], expectation.verdict, expectation.says[3:]]
        assert part == ["", "", f"   {expectation.decided_by}"]
    assert not re.search(r"[+-]0\.000\b", str(rows))  # whether it touches 0 is the question


def test_the_tables_fit_on_a_page(record):
    """In 100 characters, with two spaces between columns and three before them."""
    rates = load_results("12_descendants_rates")["numbers"]
    for rows in (saying.cost_table(record), saying.fidelity_table(record), saying.verdicts(record),
                 saying.rate_table(record, rates)):
        assert len({len(row) for row in rows}) == 1
        widths = [max(len(str(cell)) for cell in column) for column in zip(*rows)]
        assert 3 + sum(widths) + 2 * (len(widths) - 1) <= 100, rows[0]


def test_what_the_page_says_of_conflicts(record):
    """All follow better after 2,000 steps, ControlNeXt gains most, and two methods lead at both times."""
    early, late = ({name: mean(record, name, step, "conflicting") for name in saying.TRAINED} for step in saying.LATE)
    gains = {name: late[name] - early[name] for name in early}
    assert min(gains.values()) > 0 and max(gains, key=gains.get) == "ControlNeXt"
    for scores in (early, late):
        assert sorted(scores, key=scores.get)[-2:] == ["T2I-Adapter", "fine-tuned base"]


def test_the_cubic_times_explain_the_lead_of_t2i_adapter_in_a_conflict(record):
    cubic, uniform, usual = (saying.values(record, name, 600, "conflicting")
                             for name in ("T2I-Adapter", "T2I-Adapter, uniform times", "ControlNet"))
    assert saying.Part("", saying.minus(cubic, uniform)).verdict == "shown"
    assert saying.Part("", saying.minus(uniform, usual)).verdict == "undecided"
    error = {name: mean(record, name, "600", "with palette", "palette error")
             for name in ("T2I-Adapter", "T2I-Adapter, uniform times", "ControlNet")}
    cubic_error, uniform_error, usual_error = error.values()
    assert cubic_error - uniform_error > uniform_error - usual_error > 0
    lora, without = saying.values(record, "Control-LoRA", 600, "right"), saying.values(record, "ControlNet", 600, "right")
    assert saying.Part("", saying.minus(lora, without)).verdict == "undecided"


def test_the_early_join_is_behind_after_150_steps_and_ahead_later(record):
    for step, verdict in {"150": "refuted", "300": "shown", "600": "shown"}.items():
        early, usual = (saying.values(record, name, step, "right") for name in ("ControlNeXt, early join", "ControlNeXt"))
        assert saying.Part("", saying.minus(early, usual)).verdict == verdict
    trained = [record[name]["cost"]["trained"] for name in ("ControlNeXt, early join", "ControlNeXt")]
    assert trained[0] < trained[1]


def within(record: dict, weights: float = math.inf, step_cost: float = math.inf, keeps_base: bool = False) -> list[str]:
    """The trained methods that train at most so many weights, and need at most so many operations per evaluation."""
    fitting = []
    for name in saying.TRAINED:
        too_large = record[name]["cost"]["trained"] > weights
        too_slow = saying.operations(record, name)[0] > step_cost
        changes_the_base = keeps_base and not saying.keeps_the_base(record, name)
        if not (too_large or too_slow or changes_the_base):
            fitting.append(name)
    return fitting


def ranking(record: dict, names: list[str], step: int | str = 600, prompt: str = "right") -> str:
    """Up to four methods by their mean F1, the best one first, as one line."""
    scores = {name: statistics.fmean(saying.values(record, name, step, prompt)) for name in names}
    best_first = sorted(scores, key=scores.get, reverse=True)
    return ", ".join(f"{name} {scores[name]:.2f}" for name in best_first[:4])


def test_the_choices_of_the_page_are_those_of_its_table(record):
    few = within(record, weights=250_000, keeps_base=True)
    cheap = within(record, step_cost=1.05 * 194, keeps_base=True)
    assert set(few) == {"Control-LoRA", "ControlNet-XS"} and set(cheap) == {"T2I-Adapter", "ControlNet-XS"}
    keeping = within(record, keeps_base=True)
    assert ranking(record, keeping, "150").split(" 0.")[0] == "ControlNet++"
    assert ranking(record, [name for name in keeping if name != "ControlNet++"], "150").startswith("T2I-Adapter")
    conflict = ranking(record, keeping, prompt="conflicting")
    assert conflict.startswith("T2I-Adapter") and conflict.split(", ")[1].startswith("ControlNet++")
    assert ranking(record, within(record), prompt="conflicting").startswith("fine-tuned base")
    palette = {name: mean(record, name, "600", "with palette", "palette error") for name in saying.TRAINED}
    assert max(palette, key=palette.get) == "T2I-Adapter"


def test_the_record_of_the_rates_shows_what_its_findings_say(record):
    rates = importlib.import_module("experiments.12_descendants_rates")
    written = load_results("12_descendants_rates")
    found = rates.findings(written["numbers"])
    assert written["findings"].keys() == found.keys()
    for name, values in found.items():
        assert written["findings"][name] == pytest.approx(values, abs=1e-6), name


def test_what_the_page_says_of_other_rates(record):
    """All but the fine-tuned base are better at a larger rate, the ordering stays, and a low rate forgets nothing."""
    rates = load_results("12_descendants_rates")
    by_rate = {name: saying.at_each_rate(record, rates["numbers"], name)
               for name in saying.TRAINED if name != "ControlNet++"}
    best = {name: scores[saying.best_rate(scores)] for name, scores in by_rate.items()}
    assert [name for name, scores in by_rate.items() if saying.best_rate(scores) <= 0.001] == ["fine-tuned base"]
    assert sum(saying.best_rate(scores) == 0.004 for scores in by_rate.values()) == 4
    pairs = {name: values[0] for name, values in rates["findings"].items() if name.endswith(", F1")}
    assert len(pairs) == 6 and min(pairs.values()) > 0
    assert [name for name, value in pairs.items() if value > 0.01] == [name for name in pairs if "ControlNeXt" in name]
    assert min(scores["right"]["F1"] for name, scores in best.items() if name != "ControlNeXt") > 0.99
    assert by_rate["Control-LoRA"][0.004]["F1 after 150 steps"] > 0.95
    slow = by_rate["fine-tuned base"][0.0005]
    assert slow["new colours"]["colours"] == 1 and slow["right"]["F1"] > 0.99
    assert all(one["new colours"]["colours"] == 1 for name, scores in by_rate.items() for one in scores.values()
               if saying.keeps_the_base(record, name))
