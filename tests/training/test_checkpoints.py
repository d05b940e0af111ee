import asyncio
import contextlib
import errno
import gc
import json
import logging
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmreid_jax import __version__
from mmreid_jax.convert import store
from mmreid_jax.errors import UserError
from mmreid_jax.training import checkpoints, optimizers
from mmreid_jax.training.checkpoints import Checkpoints, load_variables
from mmreid_jax.training.state import TrainState, create

ROOT = pathlib.Path(__file__).parents[2]
FROZEN = (optimizers.Group("^bottleneck/bias$", frozen=True),)


def _state(value=0.0, width=3, step=0, batch_stats=True):
    """A training state with every kind of leaf; all floats are near `value`."""
    params = {
        "backbone": {"blocks": {"kernel": jnp.full((2, 4, width), value)}},
        "bottleneck": {"scale": jnp.full((width,), value + 1), "bias": jnp.full((width,), value + 2)},
    }
    stats = {"bottleneck": {"mean": jnp.full((width,), value + 3), "count": jnp.int32(7)}} if batch_stats else {}
    options = optimizers.OptimizerOptions("adam", bias_lr_factor=1.0)
    optimizer = optimizers.build(options, params, np.array([10]), FROZEN)
    state = create({"params": params, "batch_stats": stats}, optimizer, {"weight": jnp.float32(value)})
    return state.replace(step=jnp.int32(step))


def _numpy(tree):
    return jax.tree.map(np.asarray, tree)


def _assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def best_step(folder):
    """Step of the checkpoint that counts as the best."""
    return load_variables(folder, which="best")[1]["step"]


def _steps(directory):
    return sorted(int(path.name) for path in pathlib.Path(directory).iterdir() if path.name.isdecimal())


def _everywhere(devices):
    return NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec())


class TestSaveAndRestore:
    def test_round_trip_of_state_and_meta(self, tmp_path):
        state = _state(0.5, step=12)
        with Checkpoints(tmp_path / "run" / "checkpoints") as store:
            assert store.save(12, state, {"config": {"seed": 3}, "position": 12, "size": (256, 128)})
            restored, meta = store.restore(_state())
        _assert_same(restored, state)
        assert isinstance(restored, TrainState)
        assert meta == {
            "config": {"seed": 3}, "position": 12, "size": [256, 128], "step": 12, "version": __version__,
        }  # fmt: skip

    def test_float64_round_trip(self, tmp_path, x64):
        state = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64) / 3, _state(0.5))
        with Checkpoints(tmp_path) as store:
            store.save(1, state, {})
            _assert_same(store.restore(state)[0], state)

    def test_relative_directory_and_new_process_object(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with Checkpoints("a/b") as store:
            store.save(1, _state(1.0), {})
        with Checkpoints(tmp_path / "a" / "b") as store:
            assert store.latest_step() == 1
            _assert_same(store.restore(_state())[0], _state(1.0))

    def test_best_and_latest_stay(self, tmp_path):
        scores = {10: 0.5, 20: 0.7, 30: None, 40: 0.7, 50: float("nan"), 60: 0.6}
        kept = {10: [10], 20: [20], 30: [20, 30], 40: [20, 40], 50: [20, 50], 60: [20, 60]}
        with Checkpoints(tmp_path, metric="mINP") as store:
            assert store.latest_step() is None
            for step, score in scores.items():
                metrics = None if score is None else {"mAP": 0.9 - step / 1000, "mINP": score}
                assert store.save(step, _state(float(step)), {}, metrics)
                store.wait()
                assert _steps(tmp_path) == kept[step]
                assert store.latest_step() == step
        with Checkpoints(tmp_path, metric="mINP") as store:
            assert (store.latest_step(), best_step(tmp_path)) == (60, 20)
            np.testing.assert_array_equal(store.restore(_state(), step=20)[0].memory["weight"], 20.0)
            assert store.save(70, _state(70.0), {}, {"mINP": np.float32(0.8)})
        assert _steps(tmp_path) == [70]

    def test_best_without_any_score(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(), {})
            store.save(2, _state(), {})
        assert _steps(tmp_path) == [2]

    def test_a_step_that_is_there_is_left_alone(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            assert store.save(5, _state(1.0), {"first": True})
            assert not store.save(5, _state(2.0), {"first": False})
            assert store.restore(_state())[1]["first"]

    def test_an_earlier_step_is_refused(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(5, _state(), {})
            with pytest.raises(UserError, match=r"holds step 5, which is later than step 4; choose another --workdir"):
                store.save(4, _state(), {})

    def test_a_donated_state_is_saved_as_it_was(self, tmp_path):
        advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
        state = {"w": jnp.zeros((1000, 1000))}
        with Checkpoints(tmp_path) as store:
            for step in range(1, 31):
                state = advance(state)
                if step % 10 == 0:
                    store.save(step, state, {}, {"mAP": step})
            saved, _ = store.restore(state)
        np.testing.assert_array_equal(saved["w"], 30.0)

    def test_metrics_must_hold_the_deciding_one(self, tmp_path):
        with Checkpoints(tmp_path) as store, pytest.raises(ValueError, match="lack 'mAP'"):
            store.save(1, _state(), {}, {"rank1": 0.5})

    def test_meta_that_is_no_json_leaves_nothing(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            with pytest.raises(TypeError, match="type object"):
                store.save(1, _state(), {"broken": object()})
            assert list(tmp_path.iterdir()) == []

    def test_remains_of_an_interrupted_write_are_ignored_and_removed(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(1.0), {})
        shutil.copytree(tmp_path / "1", tmp_path / "2.orbax-checkpoint-tmp")
        (tmp_path / "2.orbax-checkpoint-tmp" / "state" / "_METADATA").unlink()
        with Checkpoints(tmp_path) as store:
            assert store.latest_step() == 1
            assert store.save(2, _state(2.0), {})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["2"]

    def test_an_error_of_the_block_is_not_hidden(self, tmp_path):
        def loop():
            with Checkpoints(tmp_path) as store:
                store.save(1, _state(), {})
                raise RuntimeError("of the loop")

        with pytest.raises(RuntimeError, match="of the loop"):
            loop()
        assert _steps(tmp_path) == [1]


class TestSharding:
    @pytest.mark.parametrize(("before", "after"), [(8, 1), (8, 4), (1, 8), (4, 2)])
    def test_another_number_of_devices(self, tmp_path, before, after):
        state = jax.device_put(_state(0.25), _everywhere(jax.devices()[:before]))
        with Checkpoints(tmp_path) as store:
            store.save(1, state, {})
            sharding = _everywhere(jax.devices()[:after])
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), _state())
            restored, _ = store.restore(like)
        _assert_same(restored, _state(0.25))
        assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(restored))

    def test_split_arrays(self, tmp_path):
        def split(n):
            return NamedSharding(Mesh(np.array(jax.devices()[:n]), ("data",)), PartitionSpec("data"))

        memory = {"queue": jax.device_put(jnp.arange(24.0).reshape(8, 3), split(8))}
        with Checkpoints(tmp_path) as store:
            store.save(1, memory, {})
            like = {"queue": jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=split(2))}
            restored, _ = store.restore(like)
        np.testing.assert_array_equal(restored["queue"], np.arange(24.0).reshape(8, 3))
        assert len(restored["queue"].sharding.device_set) == 2

    def test_without_sharding_numpy_comes_back(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, jax.device_put(_state(0.25), _everywhere(jax.devices())), {})
            for like in (_numpy(_state()), jax.eval_shape(_state)):
                restored, _ = store.restore(like)
                _assert_same(restored, _state(0.25))
                assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored))

    def test_a_process_with_one_device_reads_what_eight_wrote(self, tmp_path):
        with Checkpoints(tmp_path / "checkpoints") as store:
            store.save(3, jax.device_put(_state(0.25), _everywhere(jax.devices())), {}, {"mAP": 0.5})
        program = (
            "import jax, sys; from mmreid_jax.training.checkpoints import load_variables;"
            "v, m = load_variables(sys.argv[1]); assert jax.device_count() == 1;"
            "print(float(v['params']['bottleneck']['bias'].sum()), m['step'])"
        )
        environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["6.75", "3"], done.stderr


class TestDamagedScores:
    @pytest.mark.parametrize(
        "content",
        [b'{"sco', b"", b"\xff", b"[" * 100_000, b"[1]", b'{"score": "high"}'],
        ids=["cut", "empty", "bytes", "deep", "list", "text"],
    )
    @pytest.mark.parametrize("step", [1, 2])
    def test_they_are_not_needed_to_go_on(self, content, step, tmp_path, caplog):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(1.0, step=1), {}, {"mAP": 0.5})
            store.save(2, _state(2.0, step=2), {}, {"mAP": 0.4})
        (tmp_path / str(step) / "metrics" / "metrics").write_bytes(content)
        variables, _ = load_variables(tmp_path)
        assert float(variables["params"]["backbone"]["blocks"]["kernel"][0, 0, 0]) == (2.0 if step == 1 else 1.0)
        for latest in (2, 3):
            with Checkpoints(tmp_path) as store:
                assert (store.latest_step(), best_step(tmp_path)) == (
                    latest,
                    3 - step if latest == 2 or step == 2 else 3,
                )
                store.restore(_state())
                store.save(latest + 1, _state(3.0, step=latest + 1), {}, {"mAP": 0.45})
            # It may be the best one.
            assert (tmp_path / str(step)).is_dir()
        assert caplog.text.count(f"the scores of checkpoint {tmp_path / str(step)} are damaged") == 1


class TestMistakes:
    def test_another_architecture(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(width=3), {})
            with pytest.raises(UserError) as caught:
                store.restore(_state(width=5))
        message = str(caught.value)
        assert "batch_stats/bottleneck/mean is float32 [3] in the checkpoint but float32 [5] in the model" in message
        assert message.startswith(f"checkpoint {tmp_path / '1'} is of another model: ")
        assert "; and 5 more. " in message
        assert "\n" not in message

    @pytest.mark.parametrize("shape", [(4, 5), (6, 4, 5), (5,)])
    def test_another_number_of_identities(self, tmp_path, shape):
        other = (*shape[:-1], 9)
        with Checkpoints(tmp_path) as store:
            store.save(1, {"params": {"head": {"classifier": {"kernel": jnp.zeros(shape)}}, "w": jnp.zeros(2)}}, {})
            like = {"params": {"head": {"classifier": {"kernel": jnp.zeros(other)}}, "w": jnp.zeros(2)}}
            with pytest.raises(UserError, match=r"number of identities .* with --config\.model\.num_classes=5$"):
                store.restore(like)
            like["params"]["w"] = jnp.zeros(3)
            with pytest.raises(UserError, match="is of another model"):
                store.restore(like)

    def test_names_that_one_side_lacks(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, {"a": jnp.zeros(2), "b": jnp.zeros(3)}, {})
            with pytest.raises(
                UserError, match=r"b float32 \[3\] is not in the model; c float32 \[4\] is not in the ch"
            ):
                store.restore({"a": jnp.zeros(2), "c": jnp.zeros(4)})

    def test_another_dtype_is_not_cast_in_silence(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, {"a": jnp.zeros(2)}, {})
            with pytest.raises(
                UserError, match=r"a is float32 \[2\] in the checkpoint but bfloat16 \[2\] in the model"
            ):
                store.restore({"a": jnp.zeros(2, jnp.bfloat16)})

    def test_nothing_to_restore(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            with pytest.raises(UserError, match="holds no checkpoint; train first"):
                store.restore(_state())
            store.save(1, _state(), {})
            with pytest.raises(UserError, match="holds no step 7; it has 1"):
                store.restore(_state(), step=7)

    def test_a_file_where_the_directory_should_be(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match=r"cannot open checkpoints in .*file.*; choose a --workdir"):
            Checkpoints(tmp_path / "file" / "checkpoints")

    # Orbax leaves a reader behind that notices only after its event loop is closed.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_a_damaged_checkpoint(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(), {})
            store.wait()
            for file in (tmp_path / "1" / "state").rglob("d/*"):
                file.write_bytes(b"\0" * 8)
            with pytest.raises(UserError, match=r"checkpoint .*1 is damaged \(.*\); delete this folder"):
                store.restore(_state())
        with pytest.raises(UserError, match="is damaged"):
            load_variables(tmp_path)
        (tmp_path / "1" / "state" / "_METADATA").write_text("{")
        with pytest.raises(UserError, match="is damaged"):
            load_variables(tmp_path)

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (PermissionError(13, "Permission denied"), "permission denied"),
            (ValueError("PERMISSION_DENIED: Error opening d/1"), "permission denied"),
            (MemoryError(), "not enough memory"),
            (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), "not enough memory"),
            (RuntimeError("Unable to initialize backend 'cuda': no"), "JAX finds no device"),
            (AssertionError(), "JAX finds no device"),
            (OSError(24, "Too many open files"), "Too many open files"),
            (RuntimeError("something about shardings"), "is complete, but could not be put onto these devices"),
        ],
    )
    @pytest.mark.parametrize("hidden", [False, True], ids=["itself", "as a cause"])
    def test_what_is_no_damage_is_not_called_damage(self, tmp_path, monkeypatch, error, words, hidden):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(), {"config": {}})
            store.wait()
            if hidden:
                try:
                    raise RuntimeError("reading failed") from error
                except RuntimeError as outer:
                    error = outer

            def fails(*_, **__):
                raise error

            monkeypatch.setattr(store._manager, "restore", fails)
            with pytest.raises(UserError, match=words) as caught:
                store.restore(_state())
            assert "damaged" not in str(caught.value)
            assert "delete" not in str(caught.value)

    def test_scores_come_after_the_state(self, tmp_path):
        """A state is saved before it is scored; the best and the latest stay."""
        with Checkpoints(tmp_path) as store:
            for step, score in ((1, 0.5), (2, 0.9), (3, 0.1), (4, 0.2)):
                store.save(step, _state(float(step)), {"config": {}})
                assert not store.is_rated(step)
                store.rate(step, {"mAP": score})
                assert store.is_rated(step)
            store.save(5, _state(5.0), {"config": {}})
            store.wait()
            assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdecimal()) == [2, 5]
        variables, meta = load_variables(tmp_path, which="best")
        assert meta["step"] == 2
        _assert_same(variables, _numpy(_state(2.0).variables))
        with Checkpoints(tmp_path) as store:
            assert store.is_rated(2)
            assert not store.is_rated(5)

    def test_scores_without_the_metric_rate_nothing(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            for step in (1, 2):
                store.save(step, _state(float(step)), {"config": {}})
                store.rate(step, {"exact_rgb": 1.0 / step})
            assert store.is_rated(2)
        assert load_variables(tmp_path, which="best")[1]["step"] == 2


class TestLoadVariables:
    @pytest.fixture
    def workdir(self, tmp_path):
        with Checkpoints(tmp_path / checkpoints.FOLDER) as store:
            store.save(10, _state(10.0), {"config": {"seed": 1}}, {"mAP": 0.8})
            store.save(20, _state(20.0), {"config": {"seed": 1}}, {"mAP": 0.6})
        return tmp_path

    @pytest.mark.parametrize("place", ["", checkpoints.FOLDER])
    @pytest.mark.parametrize(("which", "value"), [("best", 10.0), ("last", 20.0)])
    def test_workdir_and_folder(self, workdir, place, which, value):
        variables, meta = load_variables(workdir / place, which=which)
        _assert_same(variables, _numpy(_state(value).variables))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(variables))
        assert meta["step"] == value
        assert meta["config"] == {"seed": 1}

    def test_one_checkpoint_and_relative_path(self, workdir, monkeypatch):
        monkeypatch.chdir(workdir)
        variables, meta = load_variables("checkpoints/20")
        assert meta["step"] == 20
        _assert_same(variables, _numpy(_state(20.0).variables))

    def test_nothing_is_written_while_reading(self, workdir):
        (workdir / checkpoints.FOLDER / "30.orbax-checkpoint-tmp").mkdir()
        before = sorted(map(str, workdir.rglob("*")))
        load_variables(workdir)
        assert sorted(map(str, workdir.rglob("*"))) == before

    def test_last_where_none_was_evaluated(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(1.0), {})
            store.save(2, _state(2.0), {})
        assert load_variables(tmp_path, which="best")[1]["step"] == 2

    def test_like_decides_dtype_and_place(self, workdir):
        sharding = _everywhere(jax.devices()[:4])
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                x.shape, jnp.bfloat16 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype, sharding=sharding
            ),
            _state().variables,
        )
        variables, _ = load_variables(workdir, like)
        assert variables["params"]["bottleneck"]["bias"].dtype == jnp.bfloat16
        assert variables["batch_stats"]["bottleneck"]["count"].dtype == jnp.int32
        assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(variables))
        np.testing.assert_array_equal(np.asarray(variables["params"]["bottleneck"]["bias"], np.float32), 12.0)

    def test_model_without_statistics(self, tmp_path):
        with Checkpoints(tmp_path) as store:
            store.save(1, _state(1.0, batch_stats=False), {})
        expected = _numpy(_state(1.0, batch_stats=False).variables)
        _assert_same(load_variables(tmp_path)[0], expected)
        _assert_same(load_variables(tmp_path, expected)[0], expected)
        _assert_same(load_variables(tmp_path, {"params": expected["params"]})[0], expected)

    def test_another_architecture(self, workdir):
        with pytest.raises(
            UserError, match=r"of another model: batch_stats/bottleneck/mean is \[3\] in the .* \[4\] in"
        ):
            load_variables(workdir, _state(width=4).variables)

    def test_places_without_a_model(self, tmp_path):
        with pytest.raises(UserError, match=r"there is no directory .*nowhere; give a run's workdir"):
            load_variables(tmp_path / "nowhere")
        with pytest.raises(UserError, match="holds no checkpoint; give a run's workdir"):
            load_variables(tmp_path)


@pytest.fixture(params=["a file system of 4 MiB", "a writer that fails"])
def fill(request, tmp_path, monkeypatch):
    """A directory, and a context in which it has no room for a checkpoint of 4 MiB.

    Where this process may not mount file systems, the writer fails in both cases.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if request.param.startswith("a file") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield disk, contextlib.nullcontext
        subprocess.run(["umount", disk], check=True)
        return

    def fail(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write 9 bytes: No space left on device [os_error_code='28']")

    @contextlib.contextmanager
    def full():
        with monkeypatch.context() as patch:
            patch.setattr(ocp.type_handlers.ArrayHandler, "serialize", fail)
            yield

    yield disk, full


class TestFullDisk:
    @pytest.fixture
    def small(self):
        return {"w": jax.random.normal(jax.random.key(0), (100,))}

    @pytest.fixture
    def large(self):
        return {"w": jax.random.normal(jax.random.key(0), (2_000_000,))}

    @staticmethod
    def _save_and_wait(store, step, state):
        store.save(step, state, {}, {"mAP": 0.6})
        store.wait()

    @staticmethod
    def _save_and_close(store, step, state):
        with store:
            store.save(step, state, {})

    def test_nothing_half_written_and_the_one_before_stays(self, fill, small, large, caplog):
        disk, full = fill
        folder = disk / "checkpoints"
        with Checkpoints(folder) as store:
            store.save(1, small, {}, {"mAP": 0.5})
            store.wait()
            with full(), pytest.raises(UserError) as caught:
                self._save_and_wait(store, 2, large)
            message = str(caught.value)
            assert message.startswith(
                f"no space left for checkpoint 2 in {folder}; the checkpoint of step 1 is complete;"
            )
            assert "\n" not in message
            assert sorted(path.name for path in folder.iterdir()) == ["1"]
            assert not [record for record in caplog.records if record.exc_info]
            assert (store.latest_step(), best_step(folder)) == (1, 1)
            _assert_same(store.restore(small)[0], small)
            assert store.save(3, small, {}, {"mAP": 0.4})
        assert _steps(folder) == [1, 3]

    def test_the_error_of_the_last_checkpoint_comes_with_closing(self, fill, large):
        disk, full = fill
        store = Checkpoints(disk / "checkpoints")
        with full(), pytest.raises(UserError, match=r"no space left for checkpoint 1 in [^;]*; free some space"):
            self._save_and_close(store, 1, large)
        assert list((disk / "checkpoints").iterdir()) == []


def test_other_write_errors_are_named(tmp_path, monkeypatch):
    def no_permission(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with Checkpoints(tmp_path) as store:
        monkeypatch.setattr(store._manager, "save", no_permission)
        with pytest.raises(UserError, match=r"cannot write checkpoint 1 in .*: Permission denied; choose a --workdir"):
            store.save(1, _state(), {})


@pytest.mark.parametrize("lost", [1, 2])
def test_what_an_interrupted_deletion_left_is_set_aside(tmp_path, lost, caplog):
    with Checkpoints(tmp_path) as store:
        store.save(1, _state(), {}, {"mAP": 0.9})
        store.save(2, _state(), {}, {"mAP": 0.1})
    shutil.rmtree(tmp_path / str(lost) / "state")
    with Checkpoints(tmp_path) as store:
        assert store.latest_step() == 3 - lost
        _assert_same(store.restore(_state())[0], _state())
        store.save(3, _state(), {}, {"mAP": 0.5})
    assert f"{lost} is not complete" in caplog.text
    assert [path.name for path in tmp_path.glob("*.incomplete")] == [f"{lost}.incomplete"]
    assert 3 in _steps(tmp_path)
    shutil.rmtree(tmp_path / "3" / "state")
    with Checkpoints(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.EFBIG, errno.EROFS, errno.EIO])
def test_what_the_array_writer_says_in_text_is_named(tmp_path, monkeypatch, number):
    """Of a limit on the size of files, a disk that cannot be written to any longer, a broken one."""

    def fail(*args, **kwargs):
        raise ValueError(f"OUT_OF_RANGE: Failed to write 9 bytes: {os.strerror(number)} [os_error_code='{number}']")

    with Checkpoints(tmp_path) as store:
        monkeypatch.setattr(ocp.type_handlers.ArrayHandler, "serialize", fail)
        with pytest.raises(UserError, match=rf"cannot write checkpoint 1 in [^;]*: {os.strerror(number)}; choose a"):
            TestFullDisk._save_and_wait(store, 1, _state())


def test_a_write_of_several_arrays_fails_without_a_traceback_of_the_loop(caplog, monkeypatch):
    """Of arrays that fail together the event loop tells all but one when it is collected, each with a traceback."""
    # Stores whose writes have failed keep theirs.
    monkeypatch.setattr(logging.getLogger("asyncio"), "filters", [])

    async def write():
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device [os_error_code='28']")

    def several():
        async def both():
            await asyncio.gather(asyncio.gather(write(), write()), asyncio.sleep(1))

        loop = asyncio.new_event_loop()
        ignored = loop.create_task(write())
        with contextlib.suppress(ValueError):
            loop.run_until_complete(both())
        del ignored
        loop.close()

    quiet = checkpoints._QuietOrbax()
    quiet.begin()
    try:
        several()
        gc.collect()
    finally:
        quiet.end()
    assert not [record for record in caplog.records if record.name == "asyncio"]
    several()
    gc.collect()
    assert [record for record in caplog.records if "was never retrieved" in record.getMessage()]


LIMITED = """
import resource, signal, sys
import jax.numpy as jnp
from mmreid_jax.errors import run_command
from mmreid_jax.training.checkpoints import Checkpoints

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def main():
    with Checkpoints(sys.argv[1]) as store:
        store.save(1, {str(i): jnp.arange(30_000.0) * i for i in range(20)}, {})


run_command(main)
"""


def test_a_limit_on_the_size_of_files_is_one_line(tmp_path):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "checkpoints")]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 2
    assert re.search("^error: cannot write checkpoint.*: File too large; choose", ended.stderr, re.MULTILINE)
    assert "Traceback" not in ended.stderr
    assert "Error:" not in ended.stderr


SHARED = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from mmreid_jax.training.checkpoints import Checkpoints, load_variables

folder, address, index = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
mesh = Mesh(np.array(jax.devices()), ("data",))
whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
make = jax.jit(lambda: {"params": {"w": jnp.arange(6.0)}, "memory": jnp.arange(4.0)},
               out_shardings={"params": {"w": whole}, "memory": split})
with Checkpoints(folder) as store:
    for step, score in ((1, 0.1), (2, 0.5), (3, 0.3)):
        assert store.save(step, make(), {"position": step}, {"mAP": score})
    assert store.latest_step() == 3
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), make())
    state, meta = store.restore(like)
assert state["memory"].sharding == split
mine = [float(part.data[0]) for part in state["memory"].addressable_shards]
print("read", meta["position"], mine, load_variables(folder)[0]["params"]["w"].tolist())
"""


@pytest.mark.slow(short=True)
def test_two_processes_share_the_checkpoints(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SHARED, str(tmp_path), address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen([*command, str(index)], env=environment, **pipes) for index in range(2)]
    for run, mine in zip(runs, ("[0.0, 1.0]", "[2.0, 3.0]"), strict=True):
        out, err = run.communicate(timeout=120)
        assert f"read 3 {mine} [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]" in out, err
    assert _steps(tmp_path) == [2, 3]


class TestConverted:
    """Directories made by ``mmreid_jax convert``."""

    @pytest.fixture
    def converted(self, tmp_path, monkeypatch):
        variables, meta = _numpy(_state(0.5).variables), {"layout": "htt"}
        (tmp_path / "meta.json").write_text("{}")
        monkeypatch.setattr(store, "load", lambda folder: (variables, meta) if folder == tmp_path else None)
        return tmp_path, variables, meta

    def test_as_they_are(self, converted):
        folder, variables, meta = converted
        _assert_same(load_variables(folder)[0], variables)
        assert load_variables(folder)[1] == meta

    def test_like_decides_dtype_and_place(self, converted, x64):
        folder, variables, _ = converted
        sharding = _everywhere(jax.devices()[:2])
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float64, sharding=sharding), variables)
        loaded, _ = load_variables(folder, like)
        assert all(leaf.dtype == np.float64 and leaf.sharding == sharding for leaf in jax.tree.leaves(loaded))
        _assert_same(load_variables(folder, jax.eval_shape(lambda: variables))[0], variables)

    def test_another_architecture(self, converted):
        with pytest.raises(
            UserError, match=r"of another model: batch_stats/bottleneck/mean is \[3\] in the .* \[4\] in"
        ):
            load_variables(converted[0], _state(width=4).variables)


def test_the_filter_of_tracebacks_goes_with_the_store(tmp_path):
    before = list(logging.getLogger("absl").filters)
    with Checkpoints(tmp_path):
        assert len(logging.getLogger("absl").filters) == len(before) + 1
    assert logging.getLogger("absl").filters == before


KILLED = """
import sys, time
import jax, jax.numpy as jnp
from mmreid_jax.training.checkpoints import Checkpoints

advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
state = {"w": [jnp.zeros((600, 1000)) for _ in range(4)], "step": jnp.int32(0)}
with Checkpoints(sys.argv[1]) as store:
    if store.latest_step() is not None:
        state, meta = store.restore(state)
    while True:
        state = advance(state)
        step = int(state["step"])
        store.save(step, state, {"position": step}, {"mAP": -abs(step % 7 - 3)})
        print(step, flush=True)
"""


def _run_and_kill(directory, steps, seconds):
    """Starts (or resumes) a run that saves all the time, kills it `seconds` after some steps; returns the last of them.

    A save starts when the one before is complete, so all but the last of these steps were.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(directory)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        printed = [run.stdout.readline() for _ in range(steps)]
        time.sleep(seconds)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL, run.stderr.read()
    return int(printed[-1])


def _kill_again_and_again(directory, seconds):
    like = {"w": [np.zeros((600, 1000), np.float32)] * 4, "step": np.zeros((), np.int32)}
    reached = 0
    for pause in seconds:
        begun = _run_and_kill(directory, 3, pause)
        assert begun >= reached + 3
        steps = _steps(directory)
        reached = steps[-1]
        assert reached >= begun - 1
        assert len(steps) <= 3
        for step in (reached, checkpoints._best(checkpoints._scores(directory))):
            restored = _read(directory, step, like)
            assert restored["position"] == step
            assert restored["values"] == {float(step)}


def _read(directory, step, like):
    """Position and the set of all values of a checkpoint, read beside the run's own folder."""
    with ocp.PyTreeCheckpointer() as reader:
        args = ocp.args.PyTreeRestore(item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like))
        state = reader.restore(directory / str(step) / "state", args=args)
    meta = json.loads((directory / str(step) / "meta" / "metadata").read_text())
    return {
        "position": meta["position"],
        "values": {float(v) for leaf in jax.tree.leaves(state) for v in np.unique(leaf)},
    }


@pytest.mark.slow(short=True)
def test_killed_while_saving(tmp_path):
    _kill_again_and_again(tmp_path, [0.05, 0.11])


@pytest.mark.slow
def test_killed_while_saving_many_times(tmp_path):
    _kill_again_and_again(tmp_path, np.random.default_rng(0).uniform(0.0, 0.3, 12))
