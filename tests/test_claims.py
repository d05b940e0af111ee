"""The benchmark of the papers' claims: its intervals, its tables, and that it goes on where it stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import claims

TINY = {
    "data.drawn_identities": 6,
    "data.drawn_images": 6,
    "data.image_size": (32, 16),
    "data.padding": 2,
    "data.threads": 1,
    "model.backbone": "resnet_micro",
    "init.backbone": "",
    "train.identities_per_batch": 4,
    "train.images_per_identity": 2,
    "optim.epochs": 1,
    "mtt.optim.epochs": 1,
    "mtt.batch_size": 4,
    "eval.batch_size": 16,
}


def test_an_interval_of_equal_differences_is_that_difference():
    assert claims.interval([np.full(7, 0.25), np.full(4, 0.25)]) == pytest.approx((0.25, 0.25, 0.25))


def test_an_interval_knows_both_spreads():
    """Against the plain loop over resamples, with draws of its own."""
    random = np.random.default_rng(0)
    values = [random.normal(0.02 * seed, 0.1, 30) for seed in range(5)]
    draws = []
    for _ in range(4000):
        seeds = random.integers(5, size=5)
        draws.append(np.mean([random.choice(values[seed], 30).mean() for seed in seeds]))
    mean, low, high = claims.interval(values)
    assert mean == pytest.approx(np.mean([group.mean() for group in values]))
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=4e-3)
    # One seed alone knows the spread of identities, not that of seeds.
    narrow = claims.interval(values[:1])
    assert narrow[2] - narrow[1] < high - low


@pytest.mark.parametrize("name", claims.SYSTEMS)
def test_every_row_is_compared_with_one_that_there_is(name):
    system = claims.SYSTEMS[name]
    rows = [*system.variants, *filter(None, [system.adapted, *(system.ensemble or ())[:1]])]
    references = [system.reference(row) for row in rows]
    assert references[0] == ""
    assert all(reference in rows for reference in references[1:])
    assert not [row for row, reference in zip(rows, references, strict=True) if row == reference]


def test_configs_are_valid(tmp_path):
    from mmreid_jax import validation

    for name, system in claims.SYSTEMS.items():
        for variant in (*system.hidden.values(), *system.variants.values()):
            config = claims.config_of(system, variant, 10, claims.Place(tmp_path, str(tmp_path)))
            validation.check(validation.complete(config), starts=variant.upon is None)
            assert config.data.drawn_seed == 10, name


def test_table():
    row = {"mAP": 0.5, "R1": 0.6, "mINP": 0.1, "identities": {"1": 0.4, "2": 0.6}, "against": ""}
    better = {**row, "mAP": 0.55, "identities": {"1": 0.45, "2": 0.65}, "against": "A"}
    _, _, first, second = claims.table({10: {"A": row, "B": better}, 11: {"A": row, "B": better}}).splitlines()
    assert first == "| A | 50.00 ± 0.00 | 60.00 ± 0.00 | 10.00 ± 0.00 |  |  |  |"
    assert second.endswith("| A | +5.00 [+5.00, +5.00] | 2 of 2 |")


def test_what_systems_share_is_run_once(tmp_path, monkeypatch):
    """Equal configs of equal seeds are equal runs, under the name and the reference of each system."""
    ran = []

    def run(system, name, config, workdir):
        ran.append(name)
        score = len(ran) / 100
        row = {"mAP": score, "R1": score, "mINP": score, "identities": {"1": score}, "against": ""}
        return {name: {**row, "against": system.reference(name)}}

    monkeypatch.setattr(claims, "run_one", run)
    place = claims.Place(tmp_path / "claims", str(tmp_path))
    for name in ("agw", "caj", "rle"):
        claims.run_seed(name, 10, place)
    agw, caj, rle = (claims.rows_by_seed(name, [10], place)[10] for name in ("agw", "caj", "rle"))
    assert ran == [*claims.SYSTEMS["agw"].variants, "CAJ", "AGW + RLE", "CAJ + RLE", "DEEN", "DEEN + RLE"]
    assert caj["AGW"] == {**agw["AGW"], "against": ""}
    assert rle["CAJ"]["mAP"] == caj["CAJ"]["mAP"] != agw["AGW"]["mAP"]
    assert (agw["AGW"]["against"], rle["AGW"]["against"], rle["CAJ"]["against"]) == ("Base", "", "AGW")
    claims.run_seed("caj", 11, place)
    assert ran[-2:] == ["AGW", "CAJ"], "another seed is another run"


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(tmp_path, data_dir, capsys):
    """Runs that have a result are not run again, and work directories go when all have one."""
    place = claims.Place(tmp_path / "claims", str(data_dir), TINY)
    claims.run_seed("htt", 10, place)
    printed = capsys.readouterr().out
    files = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "claims" / "htt" / "10").iterdir()}
    assert sorted(files) == ["3m.json", "ce-triplet.json", "cim.json"]
    assert printed.count("seed 10") == 3
    removed = tmp_path / "claims" / "htt" / "10" / "3m.json"
    before = json.loads(removed.read_text())["rows"]
    removed.unlink()
    claims.run_seed("htt", 10, place)
    assert json.loads(removed.read_text())["rows"] == before
    assert capsys.readouterr().out.count("seed 10") == 1
    rows = claims.rows_by_seed("htt", [10, 11], place)
    assert list(rows) == [10]
    table = claims.table(rows)
    for label in ("+ MTT", "+ MTT, one modality missing", "CE + triplet, one modality missing"):
        assert f"| {label} |" in table
