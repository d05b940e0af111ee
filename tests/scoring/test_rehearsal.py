"""What an evaluation would stumble over is found before the first step, and a state is saved before it is scored."""

from __future__ import annotations

import pytest

from mmreid_jax import evaluate, train
from mmreid_jax.errors import UserError
from mmreid_jax.scoring import retrieval
from mmreid_jax.training import checkpoints, logs


@pytest.mark.slow(short=True)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"eval__feature": "befor"}, r"config\.eval\.feature is 'befor', but the features of .* are after, before"),
        ({"eval__rerank": True, "eval__rerank_k1": 500}, r"k1=500, k2=15 needs more than"),
        ({"eval__protocol": "msvr310"}, r"'msvr310' fits msvr310, but not rgbnt201"),
    ],
)
def test_wrong_settings_are_found_before_the_first_step(small, tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr(train, "announced", lambda *_: pytest.fail("training began"))
    with pytest.raises(UserError, match=words):
        train.main(small(**changes), tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoints/[0-9]*"))


@pytest.mark.slow
def test_training_is_not_lost_when_scoring_fails(small, tmp_path, monkeypatch):
    """The state is there, and the same command scores it and goes on as if nothing had happened."""
    whole = tmp_path / "whole"
    train.main(small(optim__epochs=3), whole)
    workdir = tmp_path / "run"
    run = retrieval.run

    def fails(*arguments, **options):
        if arguments[3] == "epoch 2":
            raise UserError("a disk was full")
        return run(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(retrieval, "run", fails)
        with pytest.raises(UserError, match="a disk was full"):
            train.main(small(optim__epochs=3), workdir)
    with checkpoints.Checkpoints(workdir / checkpoints.FOLDER) as store:
        step = store.latest_step()
        assert step
        assert not store.is_rated(step)
    train.main(small(optim__epochs=3), workdir)

    def scores(folder):
        entries = [entry for entry in logs.read_metrics(folder / logs.FILE) if entry["kind"] == "eval"]
        return [(entry["step"], entry["mAP"]) for entry in entries]

    assert scores(workdir) == scores(whole)


@pytest.mark.slow
def test_an_evaluation_leaves_the_report_of_the_training_alone(small, tmp_path):
    config = small(eval__report=True, eval__embedding_identities=0)
    train.main(config, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("report.html", "scores.jsonl")}
    evaluated = small(eval__report=True, eval__embedding_identities=0, init__checkpoint=str(tmp_path))
    evaluate.main(evaluated, tmp_path)
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
    assert (tmp_path / evaluate.FOLDER / "report.html").exists()
    assert (tmp_path / evaluate.FOLDER / "scores.jsonl").read_text().count("evaluated") == 1
