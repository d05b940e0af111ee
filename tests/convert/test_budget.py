"""What reading a file may cost: every step is paid for from one budget."""

from __future__ import annotations

import pytest

from mmreid_jax.convert.budget import BoundedFile, Budget, Excessive


def test_budget():
    budget = Budget.of(0)
    budget.pay(64 << 20, 1_000_000)
    with pytest.raises(Excessive, match="memory"):
        budget.pay(1, 0)
    with pytest.raises(Excessive, match="time"):
        Budget.of(1 << 40).pay(0, 8_000_001)
    assert Budget.of(1 << 40).memory > 4 << 40


def test_bounded_file(tmp_path):
    (tmp_path / "f").write_bytes(bytes(100))
    with BoundedFile(tmp_path / "f", 60) as file:
        with pytest.raises(Excessive):
            file.read()
        file.seek(50)
        assert len(file.read()) == 50
