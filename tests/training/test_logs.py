import atexit
import io
import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import logs
from mmreid_jax.training.loggers import Run, give, open_boards
from mmreid_jax.training.logs import RunLog, read_metrics
from tests import limits


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(logs.time, "monotonic", clock.monotonic)
    return clock


def _open(workdir, **changes):
    return RunLog(workdir, **{"total_steps": 100, "stream": io.StringIO(), **changes})


def _train(log, first, last, every=5, value=float):
    for step in range(first, last + 1):
        log.step(step, 1 + step // 20, {"loss": jnp.float32(value(step)), "ce": jnp.ones(())}, images=8, every=every)


class TestLines:
    def test_means_over_the_steps_since_the_line_before(self, tmp_path):
        with _open(tmp_path / "new" / "run") as log:
            _train(log, 1, 12)
        entries = read_metrics(tmp_path / "new" / "run" / logs.FILE)
        assert [(e["step"], e["epoch"], e["run"], e["kind"]) for e in entries] == [
            (5, 1, "train", "train"),
            (10, 1, "train", "train"),
        ]
        assert [entry["loss"] for entry in entries] == [3.0, 8.0]

    def test_the_last_step_has_a_line(self, tmp_path):
        with _open(tmp_path, total_steps=7) as log:
            _train(log, 1, 7)
        assert [(e["step"], e["loss"]) for e in read_metrics(tmp_path / logs.FILE)] == [(5, 3.0), (7, 6.5)]

    def test_evaluations_are_flat_and_what_is_no_number_is_null(self, tmp_path):
        scores = {"mAP": np.float32(0.5), "mINP": float("nan"), "label": "epoch 1", "queries": 3, "R1": jnp.inf}
        with _open(tmp_path, kind="adapt") as log:
            log.evaluation(20, 2, scores)
        assert json.loads((tmp_path / logs.FILE).read_text()) == {
            "run": "adapt", "kind": "eval", "step": 20, "epoch": 2,
            "mAP": 0.5, "mINP": None, "label": "epoch 1", "queries": 3, "R1": None,
        }  # fmt: skip

    def test_names_of_the_log_itself_are_refused(self, tmp_path):
        with _open(tmp_path) as log, pytest.raises(ValueError, match="may not be called 'step'"):
            log.evaluation(1, 1, {"step": 1.0})

    def test_lines_are_there_while_the_run_goes_on(self, tmp_path):
        with _open(tmp_path) as log:
            _train(log, 1, 5)
            assert len(read_metrics(tmp_path / logs.FILE)) == 1

    def test_the_device_is_asked_only_when_a_line_is_due(self, tmp_path, monkeypatch):
        fetched = []
        original = jax.device_get
        monkeypatch.setattr(logs.jax, "device_get", lambda tree: fetched.append(len(tree)) or original(tree))
        with _open(tmp_path) as log:
            _train(log, 1, 14)
        # The first step is told at once.
        assert fetched == [1, 5, 5]

    def test_only_the_first_process_writes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(logs.distributed, "is_main", lambda: False)
        stream = io.StringIO()
        with _open(tmp_path / "run", stream=stream, seconds=0.0) as log:
            _train(log, 1, 10)
            log.evaluation(10, 1, {"mAP": 0.5})
            with pytest.raises(UserError, match="became NaN at step 11"):
                _train(log, 11, 15, value=lambda step: np.nan)
        assert stream.getvalue() == ""
        assert not (tmp_path / "run").exists()


class TestFirstStep:
    @pytest.mark.parametrize("begin", [1, 8])
    def test_it_is_told_at_once_and_written_with_the_others(self, tmp_path, begin):
        stream = io.StringIO()
        with _open(tmp_path, stream=stream) as log:
            log.step(begin, 1, {"loss": 2.5}, images=8, every=5)
            assert f"step {begin}, epoch 1  loss 2.5" in stream.getvalue()
            assert read_metrics(tmp_path / logs.FILE) == []
            for step in range(begin + 1, 11):
                log.step(step, 1, {"loss": 2.5}, images=8, every=5)
        assert stream.getvalue().count("loss 2.5") == 1
        assert [e["step"] for e in read_metrics(tmp_path / logs.FILE)] == [at for at in (5, 10) if at >= begin]


class TestRate:
    def test_the_first_step_is_not_timed(self, tmp_path, clock):
        with _open(tmp_path) as log:
            clock.now += 60
            for step in range(1, 11):
                log.step(step, 1, {"loss": 1.0}, images=8, every=5)
                clock.now += 2
        first, second = (entry["images_per_second"] for entry in read_metrics(tmp_path / logs.FILE))
        assert first == 4 * 8 / 8
        assert second == 5 * 8 / 10

    def test_evaluation_is_not_timed(self, tmp_path, clock):
        with _open(tmp_path) as log:
            for step in range(1, 11):
                log.step(step, 1, {"loss": 1.0}, images=8, every=5)
                if step == 7:
                    clock.now += 1000
                    log.evaluation(step, 1, {"mAP": 0.5})
                clock.now += 1
        entries = [entry for entry in read_metrics(tmp_path / logs.FILE) if entry["kind"] == "train"]
        assert entries[1]["images_per_second"] == 2 * 8 / 2

    def test_a_line_without_a_timed_step_has_no_rate(self, tmp_path):
        with _open(tmp_path) as log:
            log.step(1, 1, {"loss": 1.0}, images=8, every=1)
        assert "images_per_second" not in read_metrics(tmp_path / logs.FILE)[0]


class TestResume:
    def _steps(self, workdir):
        return [(entry["run"], entry["kind"], entry["step"]) for entry in read_metrics(workdir / logs.FILE)]

    def test_interrupted_equals_uninterrupted(self, tmp_path):
        for folder, parts in (("whole", [(0, 1, 20)]), ("parts", [(0, 1, 17), (10, 11, 20)])):
            for start, first, last in parts:
                with _open(tmp_path / folder, start_step=start) as log:
                    _train(log, first, last)
                    log.evaluation(last, 1, {"mAP": 0.5})
        without_rate = [
            [{k: v for k, v in entry.items() if k != "images_per_second"} for entry in read_metrics(path / logs.FILE)]
            for path in (tmp_path / "whole", tmp_path / "parts")
        ]
        assert without_rate[0] == without_rate[1]
        assert self._steps(tmp_path / "parts")[-2:] == [("train", "train", 20), ("train", "eval", 20)]

    def test_starting_anew_removes_the_lines_of_the_job(self, tmp_path):
        with _open(tmp_path) as log:
            log.evaluation(0, 0, {"mAP": 0.1})
            _train(log, 1, 5)
        with _open(tmp_path) as log:
            assert self._steps(tmp_path) == []
            log.evaluation(0, 0, {"mAP": 0.1})
        with _open(tmp_path, start_step=3):
            assert self._steps(tmp_path) == [("train", "eval", 0)]

    def test_adaptation_counts_apart(self, tmp_path):
        with _open(tmp_path, total_steps=10) as log:
            _train(log, 1, 10)
        for start in (0, 5):
            with _open(tmp_path, kind="adapt", start_step=start) as log:
                _train(log, start + 1, 10)
        trained, adapted = [("train", "train", n) for n in (5, 10)], [("adapt", "adapt", n) for n in (5, 10)]
        assert self._steps(tmp_path) == trained + adapted
        with _open(tmp_path, start_step=10, total_steps=10):
            assert self._steps(tmp_path) == trained + adapted
        with _open(tmp_path, start_step=5, total_steps=10):
            assert self._steps(tmp_path) == trained[:1]

    def test_a_line_cut_by_a_kill(self, tmp_path):
        with _open(tmp_path) as log:
            _train(log, 1, 10)
        path = tmp_path / logs.FILE
        path.write_text(path.read_text()[:-20])
        assert self._steps(tmp_path) == [("train", "train", 5)]
        with _open(tmp_path, start_step=5) as log:
            _train(log, 6, 10)
        assert self._steps(tmp_path) == [("train", "train", 5), ("train", "train", 10)]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [logs.FILE]

    def test_a_failed_rewrite_leaves_the_log(self, tmp_path, monkeypatch):
        with _open(tmp_path) as log:
            _train(log, 1, 10)

        def fail(*args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(logs.os, "replace", fail)
        with pytest.raises(
            UserError, match=r"cannot write the log .*metrics.jsonl: No space left on device; free some"
        ):
            _open(tmp_path, start_step=5)
        assert len(self._steps(tmp_path)) == 2


class TestReading:
    @pytest.mark.parametrize(
        "line",
        [
            b"{",
            b"3",
            b'{"step": 1}',
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"run": "train", "kind": "train", "step": "1", "epoch": 1}',
        ],
        ids=["cut", "number", "half", "bytes", "deep", "text"],
    )
    def test_a_damaged_line_is_named_and_the_rest_goes_on(self, tmp_path, line, caplog):
        path = tmp_path / logs.FILE
        content = line + b'\n{"run": "train", "kind": "train", "step": 1, "epoch": 1}\n'
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"line 1 of .*metrics.jsonl is no entry of a log"):
            read_metrics(path)
        assert [entry["step"] for entry in logs.entries(tmp_path)] == [1]
        assert "is damaged in line 1," in caplog.text
        assert logs.first_scores(tmp_path) == {}
        console = io.StringIO()
        with _open(tmp_path, start_step=5, stream=console):
            pass
        assert "is damaged in line 1, which are left out from now on" in console.getvalue()
        assert [entry["step"] for entry in read_metrics(path)] == [1]
        assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == content

    def test_a_missing_log(self, tmp_path):
        with pytest.raises(
            UserError, match=r"cannot read the log .*: No such file or directory; give the metrics.jsonl"
        ):
            read_metrics(tmp_path / "none.jsonl")


class TestFinite:
    def test_first_bad_term_is_the_one_that_tells_most(self):
        nan, inf = jnp.float32(np.nan), np.float64(np.inf)
        good = {"ce": 1.0, "loss": jnp.float32(2.0), "norm_gradient": np.float32(3.0)}
        assert logs.first_bad_term(good) is None
        assert logs.first_bad_term({}) is None
        assert logs.first_bad_term({**good, "loss": nan, "triplet": inf, "norm_gradient": nan}) == "triplet"
        assert logs.first_bad_term({"norm_gradient": nan, "loss": inf}) == "loss"
        assert logs.first_bad_term({"norm_gradient": -inf, "loss": 1.0}) == "norm_gradient"

    def test_sentence(self):
        assert logs.not_finite("triplet", np.nan, 123, 100).startswith(
            "loss term 'triplet' became NaN at step 123; the last good checkpoint is that of step 100; lower --"
        )
        assert logs.not_finite("norm_gradient", -np.inf, 9).startswith("norm_gradient became infinite at step 9; lower")

    def test_the_step_at_which_it_began_is_named_and_nothing_written(self, tmp_path):
        with _open(tmp_path, last_good=lambda: 4) as log:
            _train(log, 1, 5)
            with pytest.raises(
                UserError, match=r"'loss' became NaN at step 8; the last good checkpoint is that of step 4"
            ):
                _train(log, 6, 10, value=lambda step: step if step < 8 else np.nan)
        assert len(read_metrics(tmp_path / logs.FILE)) == 1

    def test_check_before_a_checkpoint_neither_writes_nor_forgets(self, tmp_path):
        with _open(tmp_path) as log:
            _train(log, 1, 3)
            assert [values["loss"] for values in log.check_finite()] == [1.0, 2.0, 3.0]
            assert read_metrics(tmp_path / logs.FILE) == []
            _train(log, 4, 5)
            assert read_metrics(tmp_path / logs.FILE)[0]["loss"] == 3.0
            assert log.check_finite() == []
            _train(log, 6, 7, value=lambda step: np.inf)
            with pytest.raises(UserError, match="'loss' became infinite at step 6"):
                log.check_finite()


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestConsole:
    def test_a_line_every_few_seconds_and_at_the_end(self, clock):
        stream = io.StringIO()
        progress = logs.ProgressBar(40, start=10, title="train", stream=stream, seconds=10.0)
        for done in range(11, 41):
            clock.now += 3
            progress.update(done, "loss 1", "8.0 images/s")
        lines = stream.getvalue().splitlines()
        assert lines[0] == "train 14/40  loss 1  8.0 images/s  1:18 left"
        assert lines[-1] == "train 40/40  loss 1  8.0 images/s  0:00 left"
        assert len(lines) == 8

    def test_lines_of_a_run(self, tmp_path):
        stream = io.StringIO()
        with _open(tmp_path, stream=stream, seconds=0.0) as log:
            log.say("headline\nsecond")
            log.step(1, 1, {"ce": 2.0, "loss": 3.0, "norm_gradient": 1.0}, images=8, every=1)
            log.evaluation(1, 1, {"mAP": 0.4567, "label": "epoch 1", "queries": 3})
        lines = stream.getvalue().splitlines()
        assert lines[:2] == ["headline", "second"]
        assert lines[2].startswith("train 1/100  epoch 1  loss 3  ce 2  ")
        assert lines[3] == "step 1, epoch 1: mAP 45.67 %"

    def test_a_bar_on_a_terminal(self, tmp_path):
        stream = Terminal()
        with _open(tmp_path, stream=stream, total_steps=20, start_step=5) as log:
            log.say("headline")
            _train(log, 6, 20)
        assert "headline\n" in stream.getvalue()
        assert "20/20" in stream.getvalue()
        assert "images/s" in stream.getvalue()

    def test_lines_where_tqdm_is_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "tqdm", None)
        stream = Terminal()
        logs.ProgressBar(2, stream=stream, seconds=0.0).update(1, "x")
        assert stream.getvalue().startswith("1/2  x  ")

    @pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (75, "1:15"), (3599.6, "1:00:00"), (7322, "2:02:02")])
    def test_clock(self, seconds, text):
        assert logs._clock(seconds) == text


class TestTensorBoard:
    def _events(self, folder):
        """(step, {tag: value}) of every scalar record; see the TFRecord format: length, crc, bytes, crc."""
        from tensorboardX.proto import event_pb2

        found = []
        for file in sorted(folder.glob("events.*")):
            content, at = file.read_bytes(), 0
            while at < len(content):
                length = int.from_bytes(content[at : at + 8], "little")
                event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
                at += 16 + length
                found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        return found

    def test_numbers_are_there(self, tmp_path):
        with _open(tmp_path, loggers=("tensorboard",)) as log:
            _train(log, 1, 5)
            log.evaluation(5, 1, {"mAP": 0.5, "label": "x"})
        events = self._events(tmp_path / "tensorboard" / "train")
        assert (5, "train/loss", 3.0) in events
        assert (5, "eval/mAP", 0.5) in events
        assert {tag for _, tag, _ in events} == {"train/loss", "train/ce", "train/images_per_second", "eval/mAP"}

    def test_missing_package_is_said_once(self, tmp_path, monkeypatch):
        for name in ("tensorboardX", "tensorboardX.event_file_writer"):
            monkeypatch.setitem(sys.modules, name, None)
        stream = io.StringIO()
        with _open(tmp_path, loggers=("tensorboard",), stream=stream) as log:
            _train(log, 1, 10)
        assert stream.getvalue().count("tensorboardX is not installed") == 1
        assert len(read_metrics(tmp_path / logs.FILE)) == 2

    def test_a_resumed_run_hides_what_it_does_again(self, tmp_path):
        from tensorboardX.proto import event_pb2

        with _open(tmp_path, loggers=("tensorboard",), start_step=7):
            pass
        (file,) = (tmp_path / "tensorboard" / "train").iterdir()
        # As TensorBoard reads it: everything from that step on in earlier files is left out.
        last = event_pb2.Event.FromString(self._last(file))
        assert (last.step, last.session_log.status) == (8, event_pb2.SessionLog.START)
        assert file.name.startswith("events.out.tfevents.")

    @staticmethod
    def _last(file):
        content, at, last = file.read_bytes(), 0, b""
        while at < len(content):
            length = int.from_bytes(content[at : at + 8], "little")
            last = content[at + 12 : at + 12 + length]
            at += 16 + length
        return last

    def test_a_full_disk_is_one_line_and_nothing_writes_on(self, tmp_path):
        """No thread and no hook at the end of the process tries it again, with a traceback of its own."""
        before = threading.active_count(), atexit._ncallbacks()
        said = []
        boards = open_boards(("tensorboard",), Run(tmp_path, "train"), said.append)
        (file,) = (tmp_path / "tensorboard" / "train").iterdir()
        for step in (1, 2, 3):
            with limits.files_of_at_most(file.stat().st_size + 10):
                give(boards, lambda board, step=step: board.add("train", step, {"loss": 1.0}), said.append)
        assert [line.partition(" (OSError")[0] for line in said] == ["TensorBoard takes no more numbers of this run"]
        assert (threading.active_count(), atexit._ncallbacks()) == before


def test_a_line_that_does_not_fit_the_disk_leaves_the_log_as_it_was(tmp_path):
    with _open(tmp_path) as log:
        _train(log, 1, 5)
        before = log.path.read_bytes()
        with limits.files_of_at_most(len(before) + 30), pytest.raises(UserError, match="cannot write the log"):
            _train(log, 6, 10)
    assert log.path.read_bytes() == before


def test_scores_that_do_not_fit_the_disk_leave_the_file_as_it_was(tmp_path):
    """The kernel refuses to let a file grow any further in the middle of a line, as a full disk does."""
    logs.keep_scores(tmp_path, [{"mAP": 0.5}], method="agw")
    path = tmp_path / logs.SCORES_FILE
    before = path.read_bytes()
    words = r"cannot write the log .*scores\.jsonl: File too large; free some space"
    with limits.files_of_at_most(len(before) + 30), pytest.raises(UserError, match=words):
        logs.keep_scores(tmp_path, [{"mAP": 0.25}, {"mAP": 0.75}], method="agw")
    assert path.read_bytes() == before
    logs.keep_scores(tmp_path, [{"mAP": 0.25}, {"mAP": 0.75}], method="agw")
    assert [json.loads(line)["mAP"] for line in path.read_text().splitlines()] == [0.5, 0.25, 0.75]


class TestLoggers:
    def test_a_program_that_is_not_there_is_named(self, tmp_path, monkeypatch):
        for name in ("wandb", "mlflow"):
            for part in (name, f"{name}.entities", f"{name}.tracking"):
                monkeypatch.setitem(sys.modules, part, None)
            with pytest.raises(UserError, match=rf"pip install 'mmreid_jax\[{name}\]'"):
                _open(tmp_path, loggers=(name,))

    def test_one_that_fails_is_said_and_the_run_goes_on(self, tmp_path, monkeypatch):
        taken = []

        class Fails:
            def add(self, kind, step, values):
                taken.append(step)
                raise ConnectionError("the server\nis gone")

            def close(self):
                taken.append("closed")

        monkeypatch.setattr(logs, "open_boards", lambda names, run, say: [Fails()])
        stream = io.StringIO()
        with _open(tmp_path, stream=stream) as log:
            _train(log, 1, 10)
        assert taken == [5]
        assert stream.getvalue().count("Fails takes no more numbers of this run (ConnectionError: the server)") == 1
        assert [entry["step"] for entry in read_metrics(tmp_path / logs.FILE)] == [5, 10]

    def test_one_that_does_not_take_the_run_is_a_line(self, tmp_path, monkeypatch):
        def refuse(run):
            raise ConnectionError("no such server")

        monkeypatch.setitem(sys.modules, "mmreid_jax.training.loggers.mlflow", SimpleNamespace(open_board=refuse))
        with pytest.raises(
            UserError, match=r"mlflow, which does not take this run \(ConnectionError: no such server\)"
        ):
            _open(tmp_path, loggers=("mlflow",))

    def test_nothing_is_imported_before_it_is_asked_for(self):
        code = "import sys, mmreid_jax.training.logs\nassert not {'wandb', 'mlflow', 'tensorboardX'} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_a_new_run_forgets_its_name_and_a_resumed_one_keeps_it(self, tmp_path):
        Run(tmp_path, "train").remembered("wandb", "first")
        assert Run(tmp_path, "train", 5).remembered("wandb") == "first"
        assert not Run(tmp_path, "train").remembered("wandb")
        assert not Run(tmp_path, "adapt", 5).remembered("wandb")
        assert Run(tmp_path, "train", config={"a": {"b": (1, 2)}, "c": 1}).flat() == {"a.b": "(1, 2)", "c": "1"}
