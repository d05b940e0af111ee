"""Times a training step against the same network in plain PyTorch (`torch_htt` and its neighbours), in turn.

    python benchmarks/step_time.py                                        CPU, ViT-B/16, float32, 8 samples a batch
    python benchmarks/step_time.py --backbone resnet50 --threads 1
    python benchmarks/step_time.py --method ieee --streams loop vmap      three ResNet-50
    python benchmarks/step_time.py --method agw --batch 4 --per_identity 2      visible-infrared: pairs of 288x144
    python benchmarks/step_time.py --method ddag --backbone resnet_micro
    python benchmarks/step_time.py --method demo_moe --batch 4 --per_identity 2      on CLIP's tower; mdreid
    python benchmarks/step_time.py --method mmgl --batch 4      pre-training: pairs of 288x144
    python benchmarks/step_time.py --method tvi_lfm --batch 4      text stage; tvi_base: the stage before it
    python benchmarks/step_time.py --device gpu --precision float32 tf32 bfloat16 --batch 32 64 128 256
    python benchmarks/step_time.py --sections compile attention           see --help for all sections

Needs jax, flax, optax, orbax, numpy and torch alone. Our side is the real step: the method with its
losses and optimiser inside `mmreid_jax.training.step`. Both sides get the same uint8 images and the same weights, and
section ``check`` prints how far their losses differ over three steps, so that the comparison is one of equal work.
The two sides take turns; of all turns the fastest counts, in wall-clock and in processor seconds. Processor seconds
depend little on what else the machine does; ratios of a CPU are best read from them, with --threads 1. The memory of a
CPU is what one more call takes at its peak, beyond the weights and the optimiser's state.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SECTIONS = ("check", "train", "forward", "attention", "compile", "peak")
ON_CLIP = ("demo_moe", "mdreid")
METHODS = ("htt", "ieee", *ON_CLIP, "hetero_center", "base", "agw", "ddag", "deen", "mmgl", "tvi_base", "tvi_lfm")
RESNET_SIZES = ("resnet50", "resnet_micro")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["check", "train"])
    parser.add_argument("--method", choices=METHODS, default="htt")
    sizes = ("vit_base", "deit_tiny", "clip_vit_b16_projected", "clip_vit_micro", *RESNET_SIZES)
    parser.add_argument("--backbone", choices=sizes, help="default: the published one")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--batch", nargs="+", type=int, default=[8], help="samples: an image of every modality")
    parser.add_argument("--per_identity", type=int, default=4, help="samples of an identity")
    parser.add_argument(
        "--precision", nargs="+", choices=("float32", "tf32", "bfloat16", "float64"), default=["float32"]
    )
    parser.add_argument("--attention", nargs="+", default=["plain"], help="of our ViT: plain, xla, cudnn")
    parser.add_argument("--unroll", nargs="+", type=int, default=[1], help="blocks per step of our scan over depth")
    parser.add_argument("--streams", nargs="+", default=["loop"], help="of our IEEE: loop, vmap")
    parser.add_argument("--remat", action="store_true", help="our side recomputes the blocks in the backward pass")
    parser.add_argument("--threads", type=int, default=0, help="cores that both sides may use; 0: all")
    parser.add_argument("--compiler", choices=("auto", "plain"), default="auto", help="options of our compiler")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--inner", type=int, default=0, help="steps in one turn; 0: 1 on a CPU, 10 on a GPU")
    parser.add_argument("--only", choices=("jax", "torch"), help="time one side alone (memory)")
    parser.add_argument("--torch_compile", action="store_true", help="compile the PyTorch network")
    options = parser.parse_args()
    published = {"htt": "vit_base", **dict.fromkeys(ON_CLIP, "clip_vit_b16_projected")}
    options.backbone = options.backbone or published.get(options.method, "resnet50")
    if options.method == "ieee" and options.backbone != "resnet50":
        parser.error("--method ieee has a resnet50 for each modality")
    if options.method in ON_CLIP and not options.backbone.startswith("clip_"):
        parser.error(f"--method {options.method} has CLIP's tower: clip_vit_b16_projected, clip_vit_micro")
    if options.method in METHODS[4:] and options.backbone not in RESNET_SIZES:
        parser.error(f"--method {options.method} has a ResNet: {', '.join(RESNET_SIZES)}")
    if options.method == "htt" and options.backbone == "resnet_micro":
        parser.error("--method htt has no resnet_micro here")
    if options.method == "mmgl":
        # Without labels every sample stands for itself.
        options.per_identity = 1
    options.inner = options.inner or (1 if options.device == "cpu" else 10)
    if "float64" in options.precision and len(options.precision) > 1:
        parser.error("--precision float64 stands alone, for JAX allows it for a whole process")
    if any(batch % options.per_identity for batch in options.batch):
        parser.error(f"--batch must be a multiple of {options.per_identity} (--per_identity)")
    negatives = options.method in METHODS[2:] and options.method != "mmgl"
    if negatives and min(options.batch) == options.per_identity:
        parser.error("--batch needs two identities (--per_identity), or nobody has a negative")
    return options


OPTIONS = arguments()
# Cores are fixed before the libraries start their threads.
if OPTIONS.threads:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: OPTIONS.threads])
os.environ.setdefault("JAX_PLATFORMS", "cpu" if OPTIONS.device == "cpu" else "cuda")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from step_clock import Seconds, Side, in_turn, memory  # noqa: E402
from step_configs import PRECISIONS, Setting  # noqa: E402
from step_sides import Ours, Theirs, device, matmul_precision  # noqa: E402
from step_work import work_of  # noqa: E402

from mmreid_jax.models import layers, vit  # noqa: E402
from mmreid_jax.training import compilation, step  # noqa: E402

if "float64" in OPTIONS.precision:
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
compilation.choose(OPTIONS.compiler)


def in_turns(sides: dict[str, Side]) -> dict[str, Seconds | None]:
    """`in_turn` with the turns that the command line asks for."""
    return in_turn(sides, OPTIONS.repeats, OPTIONS.inner)


@functools.cache
def peak_flops(precision: str) -> float:
    """Operations per second of a large square matrix product (JAX), the yardstick of the share of peak."""
    size = 8192 if OPTIONS.device == "gpu" else 1536
    x = jnp.ones((size, size), PRECISIONS[precision][1])
    with matmul_precision(precision):
        multiply = jax.jit(jnp.matmul)
        seconds = in_turns({"x": (lambda: multiply(x, x), jax.block_until_ready)})["x"]
    assert seconds is not None
    return 2 * size**3 / seconds.wall


def row(cells: Sequence[Any]) -> None:
    """Prints a row of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def table(title: str, head: Sequence[str]) -> None:
    """Prints the head of a Markdown table."""
    print(f"\n### {title}\n")
    row(head)
    row(["---"] * len(head))


def setting(batch: int, precision: str, **more: Any) -> Setting:
    """One setting of the method of the command line."""
    return Setting(OPTIONS.method, OPTIONS.backbone, batch, OPTIONS.per_identity, precision, **more)


def settings() -> list[Setting]:
    """The settings that the command line asks for."""
    first = [setting(batch, precision) for precision in OPTIONS.precision for batch in OPTIONS.batch]
    variants = [(a, u) for a in OPTIONS.attention for u in OPTIONS.unroll]
    changed = [s._replace(attention=a, unroll=u, remat=OPTIONS.remat) for s in first for a, u in variants]
    return [s._replace(streams=streams) for s in changed for streams in OPTIONS.streams]


def check() -> None:
    """Prints the largest difference of every loss term between the sides over three steps in which nothing is drawn."""
    head = [
        "precision",
        "parameters (ours)",
        "parameters (PyTorch)",
        "step",
        "loss (ours)",
        "loss (PyTorch)",
        "largest difference of a term",
    ]
    table(f"The same losses from the same weights: {OPTIONS.method}, {OPTIONS.backbone}", head)
    for precision in OPTIONS.precision:
        same = setting(min(OPTIONS.batch), precision, drop=False)
        # Some layers begin as the identity, with weights of zero; here all of them count. MMGL's orders are given.
        ours = Ours(same, zeros=0.1)
        theirs = Theirs(same, ours, OPTIONS.torch_compile)
        sizes = [sum(x.size for x in jax.tree.leaves(ours.state.params)), sum(x.numel() for x in theirs.parameters())]
        for number in range(3):
            a, b = step.fetch(ours.train()), {name: float(value) for name, value in theirs.train().items()}
            difference = np.max([abs(float(a[name]) - value) for name, value in b.items()])
            row([precision, *sizes, number, f"{float(a['loss']):.6f}", f"{b['loss']:.6f}", f"{difference:.1e}"])


def steps(kind: str) -> None:
    """Prints seconds, ratios, images per second and share of peak of ``train`` or ``forward``."""
    title = {"train": "Training step", "forward": "Forward pass (evaluation)"}[kind]
    where = f"{OPTIONS.device}, {len(os.sched_getaffinity(0))} cores"
    variant = {**dict.fromkeys(("htt", *ON_CLIP), ("attention", "unroll")), "ieee": ("streams",)}.get(
        OPTIONS.method, ()
    )
    head = ["samples", "precision", *variant, "remat", "ours s", "PyTorch s", "ratio"]
    head += ["ours cpu-s", "PyTorch cpu-s", "ratio"] if OPTIONS.device == "cpu" else []
    head += ["ours GiB", "PyTorch GiB"] if OPTIONS.device == "cpu" else []
    head += ["ours images/s", "PyTorch images/s", "ours, share of peak", "PyTorch, share of peak"]
    table(f"{title}: {OPTIONS.method}, {OPTIONS.backbone}, {where}", head)
    for each in settings():
        ours = Ours(each)
        theirs = Theirs(each, ours, OPTIONS.torch_compile)
        pairs = {"jax": ours, "torch": theirs}
        sides = {name: (getattr(pair, kind), pair.wait) for name, pair in pairs.items() if OPTIONS.only in (None, name)}
        best = in_turns(sides)
        a, b = best.get("jax"), best.get("torch")
        images = each.batch * len(each.views if kind == "train" else each.modalities)
        work = work_of(kind, each)
        cells: list[Any] = [getattr(each, name) for name in ("batch", "precision", *variant, "remat")]
        cells += compared(a and a.wall, b and b.wall)
        cells += compared(a and a.processor, b and b.processor) if OPTIONS.device == "cpu" else []
        if OPTIONS.device == "cpu":
            cells += [f"{memory(*sides[name]):.2f}" if best.get(name) else "-" for name in pairs]
        cells += [f"{images / side.wall:.1f}" if side else "-" for side in (a, b)]
        peak = peak_flops(each.precision)
        cells += [f"{100 * work / side.wall / peak:.0f} %" if side else "-" for side in (a, b)]
        row(cells)
        del ours, theirs, pairs, sides
        gc.collect()
        if device().type == "cuda":
            torch.cuda.empty_cache()


def compared(ours: float | None, theirs: float | None) -> list[str]:
    """Two numbers and their ratio as cells; "-" for what did not fit or was not run."""
    numbers = [f"{value:.4f}" if value else "-" for value in (ours, theirs)]
    return [*numbers, f"{ours / theirs:.2f}" if ours and theirs else "-"]


def attention() -> None:
    """Prints forward and backward times of attention alone, in ViT-B's shapes."""
    size = vit.SIZES["vit_base"]
    tokens, width = 129, size.width // size.heads
    table(f"Attention, forward and backward: {OPTIONS.device}", ["samples", "type", "implementation", "ms"])
    for precision in OPTIONS.precision:
        for batch in OPTIONS.batch:
            dtype = jnp.dtype(PRECISIONS[precision][1])
            shape = (batch * len(setting(batch, precision).modalities), tokens, 3 * size.width)
            qkv = jax.random.normal(jax.random.key(0), shape, dtype)
            sides = {"ours (plain)": ours_attention(lambda x: layers.attention(x, size.heads, width**-0.5), qkv)}
            for name in OPTIONS.attention:
                if name != "plain":
                    sides[f"jax.nn.dot_product_attention, {name}"] = ours_attention(library_attention(name), qkv)
            sides["PyTorch scaled_dot_product_attention"] = their_attention(qkv)
            with matmul_precision(precision):
                for name, seconds in in_turns(sides).items():
                    row([batch, precision, name, f"{1e3 * seconds.wall:.3f}" if seconds else "-"])


def library_attention(implementation: str) -> Callable[[Any], Any]:
    """jax.nn.dot_product_attention of a joint projection."""
    heads = vit.SIZES["vit_base"].heads

    def attend(x: Any) -> Any:
        q, k, v = jnp.moveaxis(x.reshape(*x.shape[:2], 3, heads, -1), 2, 0)
        out = jax.nn.dot_product_attention(q, k, v, implementation=implementation)  # type: ignore[arg-type]
        return out.reshape(*x.shape[:2], -1)

    return attend


def ours_attention(attend: Callable[[Any], Any], qkv: Any) -> Side:
    """A timed side: the gradient of the sum of squares of an attention."""
    gradient = jax.jit(jax.grad(lambda x: jnp.square(attend(x)).sum()))
    return lambda: gradient(qkv), jax.block_until_ready


def their_attention(qkv: Any) -> Side:
    """The same in PyTorch."""
    heads = vit.SIZES["vit_base"].heads
    x = torch.from_numpy(np.array(qkv, np.float32)).to(device(), getattr(torch, qkv.dtype.name)).requires_grad_()

    def run() -> None:
        q, k, v = x.reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        F.scaled_dot_product_attention(q, k, v).square().sum().backward()

    return run, Theirs.wait


def compile_times() -> None:
    """Prints what compiling the training step costs with a scan over the blocks and with a loop (unroll = depth)."""
    head = ["samples", "unroll", "trace s", "compile s", "compile cpu-s", "temporary memory"]
    table(f"Compilation of the training step: {OPTIONS.backbone}", head)
    depth = vit.SIZES[OPTIONS.backbone].depth if OPTIONS.backbone in vit.SIZES else 1
    for unroll in sorted({1, depth, *OPTIONS.unroll}):
        ours = Ours(setting(min(OPTIONS.batch), OPTIONS.precision[0], unroll=unroll))
        start = time.perf_counter()
        lowered = ours.run.lower(ours.state, ours.batch)
        traced, processor = time.perf_counter(), time.process_time()
        compiled = lowered.compile()
        wall, processor = time.perf_counter() - traced, time.process_time() - processor
        temporary = compiled.memory_analysis().temp_size_in_bytes / 2**30
        cells = [f"{traced - start:.1f}", f"{wall:.1f}", f"{processor:.1f}", f"{temporary:.2f} GiB"]
        row([ours.setting.batch, unroll, *cells])


def peak() -> None:
    """Prints the speed of a large matrix product."""
    table(f"A large matrix product: {OPTIONS.device}", ["precision", "TFLOP/s"])
    for precision in OPTIONS.precision:
        row([precision, f"{peak_flops(precision) / 1e12:.3f}"])


def main() -> None:
    """Runs the sections of the command line."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    name = torch.cuda.get_device_name() if device().type == "cuda" else "CPU"
    print(f"jax {jax.__version__}, torch {torch.__version__}, {name}, {jax.devices()[0].device_kind}")
    run = {
        "check": check,
        "train": lambda: steps("train"),
        "forward": lambda: steps("forward"),
        "attention": attention,
        "compile": compile_times,
        "peak": peak,
    }
    for section in OPTIONS.sections:
        run[section]()


if __name__ == "__main__":
    main()
