"""The doctor command: examine ControlNets, and say in sentences what is wrong with them."""

import argparse
import sys
import warnings
from pathlib import Path

from ..conditions import CHANNELS
from ..measure.diagnosis import diagnose, noisy_batch, show_findings, verdict_of
from ..measure.fingerprint import fingerprint
from .files import load_file
from .options import hint_at_idle_weights
from .weights import OtherBase, load_base, load_control


def doctor_command(args: argparse.Namespace) -> None:
    """Examine the ControlNets whose files are given, or all the shipped ones. The status is 1 if one is broken."""
    given = [kind for kind in CHANNELS if getattr(args, f"{kind}_weights")]
    kinds = args.only or given or list(CHANNELS)
    hint_at_idle_weights(args, kinds, "the doctor examines the ControlNets that --only names")
    base = load_base(args.base_weights)
    broken = False
    for kind in kinds:
        path = getattr(args, f"{kind}_weights")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OtherBase)  # the doctor says it in more words
            control = load_control(kind, base, path)
        condition, batch = noisy_batch(base, kind)
        print(f"\nThe {kind} ControlNet {path or 'that ships'}\n")
        findings = diagnose(base, control, condition, batch, trained_on=_trained_on(path), seen=(0.0, 1.0))
        show_findings(findings)
        broken = broken or verdict_of(findings) == "broken"
    if broken:
        sys.exit(1)


def _trained_on(path: Path | None) -> str | None:
    """The fingerprint of the base in a ControlNet's file. The shipped ones were trained on the shipped base."""
    if path is None:
        return fingerprint(load_base().state_dict())
    return load_file(path).get("base")
