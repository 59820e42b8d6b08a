"""Which grids decide when the words contradict the outline?

    python lessons/experiments/words_against_grids.py

It takes about one minute on one core, without any training. It is often said that control on the deeper, smaller
grids blends text and outline better, and that control on the shallow, larger grids copies the outline. Nobody seems
to have tested it.

This was written down before the experiment ran. The prompt names another shape than the outline's. Control acts on
- all 13 connections,
- the six of the two larger grids (16 and 8 patches wide),
- the seven of the two smaller ones (4 and 2, with the middle),
- every grid alone, or none.

There are 64 held-out outlines, the shipped edge ControlNet, 12 DDIM steps and guidance 2.5, with control in one
branch. For each picture we measure whether the classifier sees the word's shape or the outline's. We also measure the
mask IoU with the outline, and clean pixels. With the right prompt, the same arms show how well the outline is
followed at all.
- The outline wins on the larger grids. Shown by: with control on the larger grids alone, the share of pictures with the
  outline's shape minus the share with the word's shape is above 0. Refuted by: it is below 0.
- The words win on the smaller grids. Shown by: with control on the smaller grids alone, the share with the word's shape
  minus the share with the outline's shape is above 0. Refuted by: it is below 0.
- "Blending" would be more than ignoring the outline. Shown by: with control on the smaller grids alone and the wrong
  word, the IoU with the outline minus that of no control is above 0, while the words win. Refuted by: it is not above
  0.
The unit is the picture. These are the weights of one training.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
# ruff: noqa: E402
from experiments.common import Findings, Record, minus, run
from minicontrolnet import (conflicting, detect_edges, edge_f1, held_out, load_base, load_classifier, load_control,
                            mask_iou, mask_of, off_palette, sample, shapes_right)


def on_grids(*places: int) -> list[float]:
    """Weight 1 for the chosen ones of the 13 connections, which come in threes per grid; 12 is the middle."""
    return [float(i in places) for i in range(13)]


ARMS = {"all grids": on_grids(*range(13)), "larger grids": on_grids(*range(6)),
        "smaller grids": on_grids(*range(6, 13)), "16 alone": on_grids(0, 1, 2),
        "8 alone": on_grids(3, 4, 5), "4 alone": on_grids(6, 7, 8),
        "2 alone, with the middle": on_grids(9, 10, 11, 12), "none": on_grids()}


def live(record: Record) -> None:
    base, classifier = load_base(), load_classifier()
    control = load_control("edge", base)
    truth, noise = held_out(4 if record.quick else 64)
    edges = detect_edges(truth.image)
    wrong = conflicting(truth.prompt)
    for words, prompt in (("wrong word", wrong), ("right word", truth.prompt)):
        for arm, weights in ARMS.items():
            name = f"{words}, {arm}"
            if name in record.numbers:
                continue
            images = sample(base, prompt, noise, [(control, edges, weights)], steps=12)
            record.add("live", name, {
                "word's shape": shapes_right(images, prompt, classifier).float(),
                "outline's shape": shapes_right(images, truth.prompt, classifier).float(),
                "IoU": mask_iou(mask_of(images), truth.mask), "F1": edge_f1(images, edges),
                "clean pixels": 1 - off_palette(images)})


# %% What the record says


def findings(numbers: dict) -> Findings:
    """Over the pictures: who wins in each arm, and whether the outline still leaves a trace."""
    found = {}
    none = numbers["wrong word, none"]
    for arm in ARMS:
        run = numbers[f"wrong word, {arm}"]
        found[f"{arm}: outline's shape minus word's"] = minus(run["outline's shape"][0], run["word's shape"][0])
        found[f"{arm}: IoU minus that of none"] = minus(run["IoU"][0], none["IoU"][0])
    word_wins = [bool(won) for won in numbers["wrong word, 8 alone"]["word's shape"][0]]
    found["8 alone, where the word wins: IoU minus that of none"] = [
        gain for gain, won in zip(found["8 alone: IoU minus that of none"], word_wins) if won]
    shapes = found["smaller grids: outline's shape minus word's"]
    found["smaller grids: word's shape minus outline's"] = [-difference for difference in shapes]
    return found


if __name__ == "__main__":
    run("words_against_grids", {"live": live}, findings)
