"""python -m minicontrolnet doctor"""

import pytest

from minicontrolnet import ControlNet, UNet, save_weights, seeded
from minicontrolnet.measure.probes import noisy_batch
from minicontrolnet.run import doctor
from minicontrolnet.run.cli import main


def test_the_one_that_ships_is_healthy(capsys):
    main(["doctor", "--only", "edge"])
    printed = capsys.readouterr().out
    assert "The edge ControlNet that ships" in printed
    assert printed.rstrip().endswith("DIAGNOSIS    healthy: none of these 16 questions found anything")
    assert "The fingerprint 279294cf agrees." in printed


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
