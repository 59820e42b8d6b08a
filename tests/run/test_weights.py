"""Weights: how a file of them is made, checked and loaded, and what ships."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from minicontrolnet import (CHANNELS, ControlNet, OtherBase, Problem, ShapeClassifier, fingerprint, load_base,
                            load_classifier, load_control, save_weights, seeded)
from minicontrolnet.measure.fingerprint import is_fingerprint_of
from minicontrolnet.run import weights as pretrained
from minicontrolnet.run.files import load_file, save_file
from minicontrolnet.run.weights import start_from

# %% What ships


def test_shipped_weights_are_locked_and_match_their_records():
    """All load, none is in training, none holds NaN, each ControlNet has learned."""
    base = load_base()
    controls = [load_control(kind, base) for kind in CHANNELS]
    for network in [base, load_classifier(), *controls]:
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())
    assert all(conv.weight.any() for control in controls for conv in control.zero_convs)


@pytest.mark.parametrize("kind", ["base", "shapes", *CHANNELS])
def test_shipped_weights_tell_how_they_were_made(kind):
    """The command, seed, steps, machine, versions and minutes stand beside them."""
    text = (pretrained.WEIGHTS / f"{kind}.txt").read_text(encoding="utf-8")
    recipe = dict(line.split(": ", 1) for line in text.splitlines())
    assert recipe["command"].startswith(f"python -m minicontrolnet train {kind}")
    assert {"steps, batch, learning rate, seed", "machine", "versions", "minutes",
            "fingerprint"} <= set(recipe)


def test_shipped_weights_are_small():
    """At most 20 MB in all."""
    assert sum(path.stat().st_size for path in pretrained.WEIGHTS.iterdir()) < 20e6


# %% Seeds and fingerprints


def test_seeded_depends_on_its_seed_alone():
    """And the global generator goes on as if nothing had been built."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = seeded(5, nn.Linear, 3, 2, bias=False)
    assert torch.equal(torch.random.get_rng_state(), before) and first.bias is None
    torch.manual_seed(2)
    assert torch.equal(seeded(5, nn.Linear, 3, 2, bias=False).weight, first.weight)
    assert not torch.equal(seeded(6, nn.Linear, 3, 2).weight, first.weight)


def test_a_fingerprint_tells_names_dtypes_shapes_and_bytes():
    """Another order is the same; any other change is not."""
    one, two = torch.arange(6.0), torch.ones(2)
    mark = fingerprint({"a": one, "b": two})
    assert len(mark) == 64 and fingerprint({"b": two, "a": one}) == mark
    less = one.clone()
    less[3] = torch.nextafter(less[3], torch.tensor(0.0))
    for other in ({"a": one, "c": two}, {"a": one.double(), "b": two}, {"a": one},
                  {"a": less, "b": two}, {"a": one.view(2, 3), "b": two},
                  {"a": two, "b": one}):
        assert fingerprint(other) != mark


def test_saved_weights_are_loaded_in_half_precision(tmp_path, make_base, monkeypatch):
    """What is loaded is what was saved, rounded and locked; the file tells its kind."""
    base = make_base(dtype=torch.float32)
    other = make_base(dtype=torch.float32, seed=1)
    monkeypatch.setattr(pretrained, "UNet", lambda: other)
    mark = save_weights(base, "base", tmp_path / "base.pt")
    content = load_file(tmp_path / "base.pt")
    assert content["kind"] == "base" and fingerprint(content["weights"]) == mark
    loaded = load_base(tmp_path / "base.pt")
    assert not any(p.requires_grad for p in loaded.parameters())
    for name, weight in base.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float())


# %% Files that are not what they should be


@pytest.fixture
def classifier_file(tmp_path, monkeypatch):
    """What the file of the only weights that ship, a shape classifier, holds."""
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    mark = save_weights(seeded(0, ShapeClassifier), "shapes", tmp_path / "shapes.pt")
    (tmp_path / "shapes.txt").write_text(f"minutes: 1\nfingerprint: {mark}\n")
    load_classifier()
    return load_file(tmp_path / "shapes.pt")


def test_a_changed_weight_is_noticed(classifier_file, tmp_path):
    """One weight of a shipped file differs from the recorded fingerprint."""
    classifier_file["weights"]["0.bias"][0] += 1
    save_file(classifier_file, tmp_path / "shapes.pt")
    with pytest.raises(Problem, match="not the file that was shipped"):
        load_classifier()


@pytest.mark.parametrize("record", [None, b"", b"fingerprint: 0123", b"\xff\xfe\x00"])
def test_a_record_that_is_missing_or_damaged_is_a_problem(record, classifier_file, tmp_path):
    """Weights that cannot be checked are not used."""
    (tmp_path / "shapes.txt").unlink()
    if record is not None:
        (tmp_path / "shapes.txt").write_bytes(record)
    with pytest.raises(Problem, match="restore it"):
        load_classifier()


@pytest.mark.parametrize("damage, said", [
    (lambda content: content.update(kind="edge"), "edge"),
    (lambda content: content.pop("kind"), "mine.pt"),
    (lambda content: content.pop("weights"), "mine.pt"),
    (lambda content: content.update(weights=None), "mine.pt"),
    (lambda content: content.update(weights=[1, 2]), "mine.pt"),
    (lambda content: content["weights"].popitem(), "another size"),
    (lambda content: content["weights"].update(new=torch.zeros(1)), "another size"),
    (lambda content: content["weights"].update({"0.bias": torch.zeros(3)}),
     "another size"),
    (lambda content: content["weights"].update({"0.bias": "text"}), "another size"),
    (lambda content: content["weights"]["0.bias"].fill_(torch.nan), "not finite"),
    (lambda content: content["weights"]["0.bias"].fill_(torch.inf), "not finite"),
])
def test_weights_that_do_not_fit_are_a_problem(damage, said, classifier_file, tmp_path):
    """Of another kind, of another size, or no weights at all: one sentence."""
    damage(classifier_file)
    torch.save(classifier_file, tmp_path / "mine.pt")  # save_file would refuse nan
    with pytest.raises(Problem, match=said) as caught:
        pretrained._load_into(ShapeClassifier(), "shapes", tmp_path / "mine.pt")
    assert "mine.pt" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, [], "text", torch.zeros(3), {}])
def test_other_contents_are_a_problem(content, tmp_path):
    """What torch.save wrote for another purpose."""
    save_file(content, tmp_path / "mine.pt")
    with pytest.raises(Problem, match="mine.pt"):
        load_base(tmp_path / "mine.pt")


# %% Kinds and dtypes


@pytest.mark.parametrize("kind, other", [("edge", "base"), ("palette", "pose"), ("edge", "palette")])
def test_weights_are_not_saved_under_the_name_of_another_kind(kind, other, tmp_path):
    control = load_control(kind, load_base())
    with pytest.raises(Problem, match="is not of the kind"):
        save_weights(control, other, tmp_path / "x.pt")
    with pytest.raises(Problem, match="is not of the kind"):
        save_weights(load_base(), kind, tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_what_nothing_could_load_is_not_saved(tmp_path):
    with pytest.raises(Problem, match="no weights of the kind 'bases'"):
        save_weights(torch.nn.Linear(1, 1), "bases", tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_the_base_is_its_own_base_in_float64(recwarn):
    """Where float64 is the default, the shipped ControlNets still belong to the shipped base."""
    torch.set_default_dtype(torch.float64)
    try:
        load_control("edge", load_base())
    finally:
        torch.set_default_dtype(torch.float32)
    assert not recwarn.list


# %% Where weights come from


def test_a_controlnet_that_does_not_record_its_base_is_told(tmp_path, shipped, recwarn):
    """It could belong to any base. Its file is used all the same."""
    base, control = shipped.base, shipped.controls["edge"]
    save_weights(control, "edge", tmp_path / "with.pt", base)
    load_control("edge", base, tmp_path / "with.pt")
    pretrained.start_from(seeded(0, ControlNet, base), tmp_path / "with.pt", base)
    assert not recwarn.list
    save_weights(control, "edge", tmp_path / "without.pt")
    with pytest.warns(OtherBase, match="without.pt does not record on which base it was trained"):
        loaded = load_control("edge", base, tmp_path / "without.pt")
    assert fingerprint(loaded.state_dict()) == fingerprint(control.state_dict())
    with pytest.warns(OtherBase, match="does not record on which base"):
        pretrained.start_from(seeded(0, ControlNet, base), tmp_path / "without.pt", base)


@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": state, "epoch": 3},
                                  lambda state: {f"_orig_mod.{name}": weight for name, weight in state.items()},
                                  lambda state: {f"module.{name}": weight for name, weight in state.items()}])
def test_a_bare_state_dict_is_told_by_its_name(wrap, tmp_path, shipped):
    base = shipped.base
    save_file(wrap(shipped.controls["edge"].state_dict()), tmp_path / "edge.pt")
    save_file(wrap(base.state_dict()), tmp_path / "base.pt")
    for load in (lambda: load_control("edge", base, tmp_path / "edge.pt"), lambda: load_base(tmp_path / "base.pt"),
                 lambda: pretrained.start_from(seeded(0, ControlNet, base), tmp_path / "edge.pt", base)):
        with pytest.raises(Problem, match="bare state_dict.* save_weights"):
            load()


def test_a_whole_network_and_a_training_are_told_by_their_names(tmp_path, shipped):
    torch.save(nn.Linear(1, 1), tmp_path / "network.pt")
    with pytest.raises(Problem, match="such as a whole network.* save_weights"):
        load_base(tmp_path / "network.pt")
    save_file({"training": {}, "run": {}, "seconds": 1.0, "command": ""}, tmp_path / "edge.train.pt")
    with pytest.raises(Problem, match="the state of a training, which --resume goes on from"):
        load_control("edge", shipped.base, tmp_path / "edge.train.pt")


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel])
def test_a_wrapped_network_is_saved_and_loaded_with_the_same_weights(wrap, tmp_path, shipped):
    """torch.compile and DataParallel put a prefix before each name. No code is compiled here."""
    for kind, network in {"base": shipped.base, "edge": shipped.controls["edge"]}.items():
        wrapped = wrap(network)
        assert all(name.startswith(("_orig_mod.", "module.")) for name in wrapped.state_dict())
        save_weights(wrapped, kind, tmp_path / "x.pt", shipped.base if kind == "edge" else None)
        path = tmp_path / "x.pt"
        loaded = load_base(path) if kind == "base" else load_control(kind, shipped.base, path)
        assert fingerprint(loaded.state_dict()) == fingerprint(network.state_dict())


def test_the_base_of_a_controlnet_is_a_unet(tmp_path, shipped):
    """The file named the fingerprint of something else, and loading it warned of another base."""
    path = tmp_path / "edge.pt"
    for wrong in (nn.Linear(1, 1), shipped.controls["edge"], shipped.base.state_dict(), "base.pt"):
        with pytest.raises(Problem, match="the base is a .*; give a UNet"):
            save_weights(shipped.controls["edge"], "edge", path, wrong)
    assert not path.exists()


def test_a_base_and_its_controlnet_that_were_saved_together_fit(tmp_path, shipped, recwarn):
    """The base that is loaded differs from the one that was saved by the rounding to half precision."""
    base = copy.deepcopy(shipped.base)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter *= 1.01
    mark = save_weights(base, "base", tmp_path / "base.pt")
    save_weights(shipped.controls["edge"], "edge", tmp_path / "edge.pt", base)
    loaded = load_base(tmp_path / "base.pt")
    load_control("edge", loaded, tmp_path / "edge.pt")
    assert not recwarn.list and is_fingerprint_of(mark, loaded) and not is_fingerprint_of(mark, shipped.base)


def test_the_home_folder_is_written_out(tmp_path, shipped, monkeypatch):
    """A folder of the name ~ would be made otherwise."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Problem, match="only a shell replaces ~"):
        save_weights(shipped.base, "base", "~/base.pt")
    assert not list(tmp_path.iterdir())


def test_a_start_of_another_size_changes_nothing(make_base, shipped):
    base = make_base(widths=(32, 64, 96, 128))  # the first layers fit the shipped weights, and the deepest do not
    control = seeded(0, ControlNet, base)
    before = fingerprint(control.state_dict())
    with pytest.raises(Problem, match="another size"):
        pretrained.start_from(control, "edge", base)
    assert fingerprint(control.state_dict()) == before


def test_a_controlnet_is_not_saved_as_one_of_a_base_of_another_size(make_base, tmp_path, shipped):
    with pytest.raises(Problem, match="another size"):
        save_weights(shipped.controls["edge"], "edge", tmp_path / "edge.pt", make_base())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("loaded, saved_as", [("pose", "edge"), ("edge", "pose")])
def test_a_controlnet_that_is_saved_as_another_kind_is_told(shipped, loaded, saved_as, tmp_path):
    """Both have conditions of one channel, so nothing else would notice."""
    with pytest.warns(UserWarning, match=f"this is the {loaded} ControlNet"):
        save_weights(shipped.controls[loaded], saved_as, tmp_path / "control.pt", shipped.base)


def test_the_average_of_a_controlnet_is_saved_like_the_controlnet(shipped, tmp_path):
    """torch's AveragedModel, the usual moving average, adds a prefix and a counter."""
    control = shipped.controls["edge"]
    average = torch.optim.swa_utils.AveragedModel(control)
    mark = save_weights(average, "edge", tmp_path / "average.pt", shipped.base)
    assert mark == save_weights(control, "edge", tmp_path / "control.pt", shipped.base)
    loaded = load_control("edge", shipped.base, tmp_path / "average.pt")
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), control.state_dict().values()))


def test_what_could_not_be_loaded_is_not_saved(shipped, tmp_path):
    pruned = copy.deepcopy(shipped.controls["edge"])
    prune.l1_unstructured(pruned.zero_convs[0], "weight", 0.5)
    with pytest.raises(Problem, match="prune.remove"):
        save_weights(pruned, "edge", tmp_path / "pruned.pt", shipped.base)
    with pytest.raises(Problem, match="not its state_dict"):
        save_weights(pruned.state_dict(), "edge", tmp_path / "pruned.pt", shipped.base)
    assert not (tmp_path / "pruned.pt").exists()


@pytest.mark.parametrize("arguments", [("edge", "control", "base"), ("base", "edge", "base")])
def test_start_from_with_exchanged_arguments_is_told(arguments, shipped):
    given = {"edge": "edge", "control": shipped.controls["edge"], "base": shipped.base}
    with pytest.raises(Problem, match="give the new ControlNet, and then"):
        start_from(*(given[name] for name in arguments))


@pytest.mark.parametrize("kind", ["edge", "base", "shapes"])
def test_saving_leaves_the_global_generator_alone(kind, shipped, tmp_path):
    """The check before saving builds a network, and its first weights are random."""
    network = {"edge": shipped.controls["edge"], "base": shipped.base, "shapes": shipped.classifier}[kind]
    before = torch.get_rng_state()
    save_weights(network, kind, tmp_path / "network.pt")
    assert torch.equal(torch.get_rng_state(), before)
