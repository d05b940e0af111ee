"""Measures one section of `benchmarks/gpu.py` in a process of its own; prints rows, one JSON object a line.

    python benchmarks/gpu_worker.py SECTION --seconds 60 [--quick]

A process for each section: what one has compiled or left in the device's memory does not count in another, and one
that hangs can be ended. Our side never imports PyTorch. PyTorch's side runs the peers of `step_time.py` with weights
that JAX draws on the host.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402

METHODS = {"htt": "htt_rgbnt201", "agw": "agw_sysu", "mmgl": "mmgl_sysu", "tvi_lfm": "tvi_sysu"}
CLASSES = {"htt": 171, "agw": 395, "mmgl": 395, "tvi_lfm": 395}
PER_IDENTITY = 4
# JAX's name of the matrix products of each precision, and the type of the computation.
PRECISIONS = {
    "bfloat16": ("default", "bfloat16"),
    "tf32": ("tensorfloat32", "float32"),
    "float32": ("highest", "float32"),
}
SHORTEST = 0.5
"""Seconds that one turn of a measurement takes at least."""
TURNS = 3
STEPS_PER_CALL = 8


class OutOfMemory(Exception):
    """A setting that the device has no memory for."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of training steps: samples in a batch, precision, attention of a ViT, steps in one call."""

    batch: int
    precision: str
    attention: str = "plain"
    together: int = 1


def settings(method: str, quick: bool, gpu: bool) -> list[Setting]:
    """What to measure of a method, the most wanted first."""
    small, middle, large, huge = (8, 16, 16, 16) if quick else (32, 64, 128, 256)
    attention = "cudnn" if gpu and method == "htt" else "plain"
    fast = functools.partial(Setting, precision="bfloat16", attention=attention)
    wanted = [
        fast(middle),
        Setting(middle, "tf32"),
        Setting(middle, "float32"),
        fast(large),
        fast(huge),
        fast(small, together=STEPS_PER_CALL),
        fast(small),
        Setting(large, "tf32"),
        Setting(large, "float32"),
        Setting(middle, "bfloat16"),
        fast(2 * huge),
    ]
    return list(dict.fromkeys(wanted[:1] + wanted[5:6] if quick else wanted))


def emit(section: str, **values: Any) -> None:
    """Prints a row."""
    print("ROW " + json.dumps({"section": section, **values}), flush=True)


class Clock:
    """The time that a section has; a row is begun only where there is half the time that the longest one took.

    The first row of a kind takes longest, for it compiles most. What is not done in time `gpu.py` ends.
    """

    def __init__(self, seconds: float, turns: int) -> None:
        """Begins now; a measurement is the fastest of so many turns."""
        self._end = time.monotonic() + seconds
        self._longest = 0.0
        self._turns = turns

    def rows(self, items: Mapping[str, Any]) -> Iterator[Any]:
        """The items as long as there is time for another; says by name which are left out."""
        for position, item in enumerate(items.values()):
            begun = time.monotonic()
            if begun + self._longest / 2 > self._end:
                emit("left out", what=list(items)[position:])
                return
            yield item
            self._longest = max(self._longest, time.monotonic() - begun)

    def fastest(self, call: Callable[[], Any], wait: Callable[[Any], Any]) -> float:
        """Seconds of a call: of the fastest turn, each of so many calls that it takes SHORTEST."""
        wait(call())
        begun = time.perf_counter()
        wait(call())
        calls = max(1, int(SHORTEST / max(time.perf_counter() - begun, 1e-6)))
        best = float("inf")
        for _ in range(self._turns):
            begun = time.perf_counter()
            for _ in range(calls):
                result = call()
            wait(result)
            best = min(best, (time.perf_counter() - begun) / calls)
        return best


@contextlib.contextmanager
def within_memory() -> Iterator[None]:
    """Turns JAX's error into `OutOfMemory`."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "out of memory" not in str(error).lower():
            raise
        raise OutOfMemory from None


def peak(clock: Clock, quick: bool) -> None:
    """The machine, and the speed of a large matrix product in every precision: the yardstick of all shares of peak."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    emit(
        "machine",
        device=device.device_kind,
        platform=device.platform,
        devices=jax.device_count(),
        memory_gib=round(stats.get("bytes_limit", 0) / 2**30, 1),
        jax=jax.__version__,
        cores=len(os.sched_getaffinity(0)),
    )
    size = 256 if quick else 8192
    for name in clock.rows({name: name for name in PRECISIONS}):
        precision, dtype = PRECISIONS[name]
        x = jax.random.normal(jax.random.key(0), (size, size), dtype)
        multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
        seconds = clock.fastest(lambda call=multiply, x=x: call(x, x), jax.block_until_ready)
        emit("peak", precision=name, size=size, seconds=seconds, flops_per_second=2 * size**3 / seconds)


def config_of(method: str, setting: Setting, quick: bool) -> Any:
    """The published config of a method with the batch and precision of a setting; tiny where it shall be quick."""
    import importlib

    from mmreid_jax.testing import tiny

    config = tiny.config(method) if quick else importlib.import_module(f"configs.{METHODS[method]}").get_config()
    with config.unlocked():
        for name in config.init:
            config.init[name] = "best" if name == "which" else ""
        if method == "tvi_lfm":
            config.model.stage, config.data.text = "text", True
        alone = method == "mmgl"  # without labels every sample stands for itself
        config.train.identities_per_batch = 1 if alone else setting.batch // PER_IDENTITY
        config.train.images_per_identity = setting.batch if alone else PER_IDENTITY
        config.model.dtype = PRECISIONS[setting.precision][1]
        if "attention" in config.model:
            config.model.attention = setting.attention
    return config


class Ours:
    """The training step of a method on noise, with the weights that every setting begins with."""

    def __init__(self, method: str, quick: bool) -> None:
        """Draws weights."""
        import jax

        from mmreid_jax.methods.base import DataFacts
        from mmreid_jax.testing import tiny
        from mmreid_jax.training import step

        self.name, self.quick = method, quick
        modalities = tiny.TINY[method].get("modalities", tiny.MODALITIES)
        self.facts = DataFacts(identities=CLASSES[method], cameras=1, views=1, modalities=modalities)
        self.parallel = step.Parallel(jax.devices()[:1])
        self.variables = step.fetch(self.build(Setting(8, "float32"))[1].init(jax.random.key(0)))

    def build(self, setting: Setting) -> tuple[Any, Any]:
        """(config, method)."""
        from mmreid_jax.methods import base

        config = config_of(self.name, setting, self.quick)
        return config, base.build(config, self.facts)

    def start(self, setting: Setting) -> tuple[Any, Any, Any]:
        """(pure step, the state before it, config)."""
        from mmreid_jax.experiment import normalization
        from mmreid_jax.methods import base
        from mmreid_jax.training import state, step

        config, method = self.build(setting)
        epoch_ends = np.array([1, 1000])
        optimizer = method.optimizer(self.variables["params"], epoch_ends)
        memory = base.start_memory(method, epoch_ends)
        pure = step.train_step(method.loss, optimizer, seed=0, normalization=normalization(config.data))
        # On the host, for a step consumes the state that it is given.
        return pure, step.fetch(state.create(self.variables, optimizer, memory)), config

    def batch(self, config: Any) -> dict[str, Any]:
        """A batch of noise as the pipeline makes it."""
        from mmreid_jax.commands import complexity

        size = config.train.identities_per_batch * config.train.images_per_identity
        shapes = complexity.example_batch(config, self.facts, size, training=True)
        rng = np.random.default_rng(0)
        batch: dict[str, Any] = {
            name: np.zeros(x.shape, x.dtype) for name, x in shapes.items() if name in ("camera", "scene")
        }
        batch["images"] = {name: rng.integers(0, 256, x.shape, np.uint8) for name, x in shapes["images"].items()}
        batch["erase"] = {name: np.tile(np.array([1, 1, 8, 8], np.int32), (size, 1)) for name in shapes["erase"]}
        batch["identity"] = np.repeat(np.arange(size // PER_IDENTITY), PER_IDENTITY).astype(np.int32)
        if "tokens" in shapes:
            tokens = rng.integers(1000, 2000, (size, 77)).astype(np.int32)
            tokens[:, 20], tokens[:, 21:] = 49407, 0
            batch["tokens"] = dict.fromkeys(shapes["tokens"], tokens)
        return batch

    @functools.cached_property
    def work(self) -> float:
        """Floating-point operations of the products of a training step, for each sample."""
        import jax

        from mmreid_jax.commands import complexity

        pure, begin, config = self.start(Setting(8, "float32"))
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.batch(config))
        return 2 * complexity.multiply_adds(pure, begin, batch) / 8

    def measure(self, setting: Setting, clock: Clock) -> dict[str, Any]:
        """Seconds of a step, compile time and memory of a setting.

        Raises:
          OutOfMemory: it does not fit.
        """
        import jax

        from mmreid_jax.training import step

        pure, begin, config = self.start(setting)
        batch = self.batch(config)
        several = setting.together > 1
        with within_memory(), jax.default_matmul_precision(PRECISIONS[setting.precision][0]):
            current = self.parallel.place_state(begin)
            placed = self.parallel.place_batches([batch] * setting.together) if several else None
            placed = placed or self.parallel.place_batch(batch)
            compiled = self.parallel.jit_train(step.several(pure) if several else pure, stacked=several)
            begun = time.perf_counter()
            program = compiled.lower(current, placed).compile()
            compile_seconds = time.perf_counter() - begun
            held = [current]

            def call() -> Any:
                held[0], metrics = program(held[0], placed)
                return metrics

            seconds = clock.fastest(call, jax.block_until_ready) / setting.together
        memory = program.memory_analysis()
        needed = memory and memory.argument_size_in_bytes + memory.temp_size_in_bytes
        images = sum(len(pixels) for pixels in batch["images"].values())
        return {
            "seconds": seconds,
            "images": images,
            "images_per_second": images / seconds,
            "compile_seconds": compile_seconds,
            "memory_gib": needed and needed / 2**30,
        }


def tried(side: Ours, setting: Setting, clock: Clock) -> Setting | None:
    """Emits the row of a setting; returns the setting, or the one without its attention where that does not run.

    None where it does not fit, or does not run at all.
    """
    row = {"method": side.name, "side": "mmreid_jax", **dataclasses.asdict(setting)}
    try:
        emit("step", **row, flops=side.work * setting.batch, **side.measure(setting, clock))
        return setting
    except OutOfMemory:
        emit("step", **row, note="does not fit")
    except Exception as error:  # another library's, of any kind: the other rows are still worth having
        emit("step", **row, note=f"failed: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
        if setting.attention != "plain":
            return tried(side, dataclasses.replace(setting, attention="plain"), clock)
    return None


def ours(method: str, clock: Clock, quick: bool) -> None:
    """Training steps of a method."""
    import jax

    side = Ours(method, quick)
    refused, full = set(), dict.fromkeys(PRECISIONS, sys.maxsize)
    gpu = jax.default_backend() != "cpu"
    for setting in clock.rows({f"{method}: {each}": each for each in settings(method, quick, gpu)}):
        if setting.attention in refused:
            setting = dataclasses.replace(setting, attention="plain")
        if setting.batch >= full[setting.precision]:
            continue
        reached = tried(side, setting, clock)
        if reached is None:
            full[setting.precision] = setting.batch
        elif reached != setting:
            refused.add(setting.attention)


def theirs(method: str, clock: Clock, quick: bool) -> None:
    """The same of PyTorch, eager and compiled; needs PyTorch."""
    try:
        import torch
    except ImportError:
        emit("left out", what=[f"PyTorch's {method}: torch is not installed"])
        return
    gpu = torch.cuda.is_available()
    os.environ.setdefault("JAX_PLATFORMS", "cuda" if gpu else "cpu")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import step_configs
    import step_sides

    published, small = ("vit_base", "deit_tiny") if method == "htt" else ("resnet50", "resnet_micro")
    backbone = small if quick else published
    setting = functools.partial(
        step_configs.Setting, method, backbone, per_identity=1 if method == "mmgl" else PER_IDENTITY
    )
    wanted = [each for each in settings(method, quick, gpu) if each.together == 1]
    plain = list(dict.fromkeys((each.batch, each.precision) for each in wanted))
    # Compiled by PyTorch is measured where it is fastest; it takes a minute or so.
    sides = [(False, *plain[0]), (True, *plain[0]), *((False, *each) for each in plain[1:])]
    if quick:
        sides = [(False, 8, "float32")]
    initial = step_sides.Ours(setting(batch=8, precision="float32"))
    full: dict[str, int] = {}
    for compiled, batch, precision in clock.rows({f"PyTorch's {method}: {each}": each for each in sides}):
        # Quick networks are not those of our side, and not to be compared.
        name = f"{method}, {backbone}" if quick else method
        row = {"method": name, "side": "PyTorch compiled" if compiled else "PyTorch", "together": 1}
        row |= {"batch": batch, "precision": precision, "attention": "sdpa" if method == "htt" else "plain"}
        if batch >= full.get(precision, sys.maxsize):
            continue
        try:
            if gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            begun = time.perf_counter()
            peer = step_sides.Theirs(setting(batch=batch, precision=precision), initial, compiled)
            peer.wait(peer.train())
            first = time.perf_counter() - begun
            seconds = clock.fastest(peer.train, peer.wait)
            images = batch * len(peer.images)
            memory = torch.cuda.max_memory_allocated() / 2**30 if gpu else None
            emit(
                "step",
                **row,
                seconds=seconds,
                images=images,
                images_per_second=images / seconds,
                compile_seconds=first if compiled else None,
                memory_gib=memory,
                torch=torch.__version__,
            )
            del peer
        except torch.OutOfMemoryError:
            full[precision] = batch
            emit("step", **row, note="does not fit")
        except Exception as error:
            emit("step", **row, note=f"failed: {type(error).__name__}: {str(error).splitlines()[0][:150]}")


def data(clock: Clock, quick: bool) -> None:
    """Training of HTT fed by the loader and by images on the device; what each delivers alone."""
    import jax

    from benchmarks import pipeline as noise
    from mmreid_jax import on_device
    from mmreid_jax.data import pipeline, samplers

    side = Ours("htt", quick)
    gpu = jax.default_backend() != "cpu"
    setting = tried(side, settings("htt", quick, gpu)[0], clock)
    if setting is None:
        return
    pure, begin, config = side.start(setting)
    threads = max(2, min(8, len(os.sched_getaffinity(0)) - 2))
    steps = STEPS_PER_CALL if quick else 40
    with tempfile.TemporaryDirectory() as folder:
        records = noise.noise_table(Path(folder) / "images", 32 if quick else 512)
        size = tuple(int(side) for side in config.data.image_size)
        options = pipeline.ImageOptions(size, flip=0.5, cache=str(Path(folder) / "cache"))
        plan = samplers.pk(
            records.identity, setting.batch // PER_IDENTITY, PER_IDENTITY, 1, 0, steps_per_epoch=6 * steps
        )
        placed = on_device.OnDevice("on", threads).open(side.parallel, records, options, training=True)
        cases: dict[str, tuple[str, on_device.DeviceTable, int, bool]] = {
            name: (name, *rest)
            for name, *rest in (
                ("loader", on_device.DeviceTable(), 1, True),
                ("on device", placed, 1, True),
                (f"on device, {STEPS_PER_CALL} steps a call", placed, STEPS_PER_CALL, True),
                ("loader alone", on_device.DeviceTable(), 1, False),
                ("on device alone", placed, 1, False),
            )
        }
        run = side.parallel.jit_steps(pure)
        for name, table, together, training in clock.rows(cases):
            current = side.parallel.place_state(begin)
            with (
                jax.default_matmul_precision(PRECISIONS[setting.precision][0]),
                pipeline.train_batches(records, plan, options, seed=0, threads=threads, held=table.host) as batches,
            ):
                calls = max(1, steps // together)
                for _ in range(2):  # the first turn compiles and fills buffers
                    begun, result = time.perf_counter(), None
                    for _ in range(calls):
                        drawn = [next(batches) for _ in range(together)]
                        if training:
                            current, result = run(current, drawn, table.arrays)
                        else:
                            result = side.parallel.place_batch(drawn[0], table.arrays)
                    jax.block_until_ready(result)
                    seconds = (time.perf_counter() - begun) / (calls * together)
            images = setting.batch * len(records.views)
            emit(
                "data",
                side=name,
                batch=setting.batch,
                precision=setting.precision if training else "",
                attention=setting.attention if training else "",
                together=together,
                seconds=seconds,
                images=images,
                images_per_second=images / seconds,
                note=f"{threads} threads" if table.host is None else "",
            )


def retrieval(clock: Clock, quick: bool) -> None:
    """Distances and scores at the size of Market-1501 and at 100,000 gallery images, features of HTT's width."""
    import jax

    from mmreid_jax.retrieval import metrics, protocols

    rng = np.random.default_rng(0)
    width = 64 if quick else 2304
    sizes = [("Market-1501", 100, 500, 20), ("100,000", 100, 1000, 20)] if quick else []
    sizes = sizes or [("Market-1501", 3368, 15913, 750), ("100,000", 3368, 100_000, 750)]
    protocol = protocols.Protocol("rgbnt", normalise=False)
    for name, asked, given, people in clock.rows({f"retrieval at {each[0]}": each for each in sizes}):
        labels = [
            metrics.Labels(rng.integers(0, people, n), rng.integers(0, 6, n), np.zeros(n, int)) for n in (asked, given)
        ]
        centres = rng.normal(size=(people, width)).astype(np.float32)
        query, gallery = (
            centres[side.identity] + 5 * rng.normal(size=(len(side.identity), width)).astype(np.float32)
            for side in labels
        )
        protocol.distances(query, gallery)
        begun = time.perf_counter()
        rows = protocol.distances(query, gallery)
        measured = time.perf_counter()
        scores = metrics.evaluate(rows, *labels, protocol)
        scored = time.perf_counter()
        shape = {"method": name, "batch": asked, "gallery": given, "width": width, "mAP": scores.mAP}
        emit("retrieval", side="mmreid_jax, distances", seconds=measured - begun, **shape)
        emit("retrieval", side="mmreid_jax, scores", seconds=scored - measured, **shape)
        x, y = jax.device_put(query), jax.device_put(gallery)
        product = jax.jit(lambda a, b: (a @ b.T).sum())
        emit(
            "retrieval",
            side="the product alone, on the device",
            seconds=clock.fastest(lambda x=x, y=y, call=product: call(x, y), jax.block_until_ready),
            **shape,
        )


def main() -> None:
    """Measures the section of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("section")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    clock = Clock(options.seconds, turns=1 if options.quick else TURNS)
    if options.quick:
        import jax

        # On a CPU compiling would take most of the time.
        jax.config.update("jax_disable_most_optimizations", True)
    sections: dict[str, Callable[[Clock, bool], None]] = {"peak": peak, "data": data, "retrieval": retrieval}
    for method in METHODS:
        sections[method] = functools.partial(ours, method)
        sections[f"{method}_torch"] = functools.partial(theirs, method)
    sections[options.section](clock, options.quick)


if __name__ == "__main__":
    main()
