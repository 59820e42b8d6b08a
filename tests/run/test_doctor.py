"""python -m minicontrolnet doctor"""

import pytest

from minicontrolnet import ControlNet, Problem, UNet, save_weights, seeded
from minicontrolnet.measure.diagnosis import Finding
from minicontrolnet.measure.probes import noisy_batch
from minicontrolnet.run import doctor
from minicontrolnet.run.cli import main
from minicontrolnet.run.weights import WEIGHTS


def test_the_one_that_ships_is_healthy(capsys):
    main(["doctor", "--only", "edge"])
    printed = capsys.readouterr().out
    assert "The edge ControlNet that ships" in printed
    assert printed.rstrip().endswith("DIAGNOSIS    healthy: none of these 17 questions found anything")
    assert "The fingerprint 279294cf agrees." in printed


def test_weights_that_only_leaves_out_are_told(capsys, tmp_path, monkeypatch):
    """Otherwise the health of the shipped ControlNet would pass for that of the file."""
    with pytest.raises(Problem, match="--palette-weights nope.pt does not exist"):
        main(["doctor", "--only", "edge", "--palette-weights", "nope.pt"])
    monkeypatch.setattr(doctor, "diagnose", lambda *given, **options: [Finding("?", "healthy", "")])
    monkeypatch.setattr(doctor, "noisy_batch", lambda base, kind: (None, None))
    main(["doctor", "--only", "edge", "--palette-weights", str(WEIGHTS / "palette.pt")])
    printed = capsys.readouterr().out
    assert "hint: --palette-weights has no effect; the doctor examines" in printed
    assert printed.count("DIAGNOSIS") == 1


def test_one_of_another_base_is_broken(capsys, tmp_path, monkeypatch):
    """Only the file that was given is examined, the cause is named, and the status says that it is broken."""
    monkeypatch.setattr(doctor, "noisy_batch", lambda base, kind: noisy_batch(base, kind, n=4))
    stranger = seeded(1, UNet)
    save_weights(seeded(2, ControlNet, stranger), "edge", tmp_path / "mine.pt", base=stranger)
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--edge-weights", str(tmp_path / "mine.pt")])
    printed = capsys.readouterr().out
    assert stop.value.code == 1 and printed.count("DIAGNOSIS") == 1
    assert printed.rstrip().endswith("DIAGNOSIS    broken: another base")
