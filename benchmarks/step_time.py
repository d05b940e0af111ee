"""Times a training step against the same network in plain PyTorch (`torch_htt` and its neighbours), in turn.

    python benchmarks/step_time.py                                        CPU, ViT-B/16, float32, 8 samples a batch
    python benchmarks/step_time.py --backbone resnet50 --threads 1
    python benchmarks/step_time.py --method ieee --streams loop vmap      three ResNet-50
    python benchmarks/step_time.py --method agw --batch 4 --per_identity 2      visible-infrared: pairs of 288x144
    python benchmarks/step_time.py --method ddag --backbone resnet_micro
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
import contextlib
import ctypes
import functools
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

SECTIONS = ("check", "train", "forward", "attention", "compile", "peak")
VISIBLE_INFRARED = ("hetero_center", "base", "agw", "ddag", "deen", "mmgl", "tvi_base", "tvi_lfm")
RESNET_SIZES = ("resnet50", "resnet_micro")
# JAX's name of each precision's matrix products; the type of the computation beside it.
PRECISIONS = {
    "float32": ("highest", "float32"),
    "tf32": ("tensorfloat32", "float32"),
    "bfloat16": (None, "bfloat16"),
    "float64": (None, "float64"),
}


class Setting(NamedTuple):
    """What one row of a table measures; `drop`: with what is drawn in each step, if anything.

    That is stochastic depth, dropout, orders of stripes, channels of images.
    """

    backbone: str
    batch: int
    precision: str
    drop: bool = True
    attention: str = "plain"
    unroll: int = 1
    remat: bool = False
    streams: str = "loop"


class Seconds(NamedTuple):
    """Of the fastest turn."""

    wall: float
    processor: float


class OutOfMemory(Exception):
    """A side did not fit."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=["check", "train"])
    parser.add_argument("--method", choices=("htt", "ieee", *VISIBLE_INFRARED), default="htt")
    parser.add_argument(
        "--backbone", choices=("vit_base", "deit_tiny", *RESNET_SIZES), help="default: the published one"
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--batch", nargs="+", type=int, default=[8], help="samples: an image of every modality")
    parser.add_argument("--per_identity", type=int, default=4, help="samples of an identity")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["float32"])
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
    options.backbone = options.backbone or ("vit_base" if options.method == "htt" else "resnet50")
    if options.method == "ieee" and options.backbone != "resnet50":
        parser.error("--method ieee has a resnet50 for each modality")
    if options.method in VISIBLE_INFRARED and options.backbone not in RESNET_SIZES:
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
    negatives = options.method in VISIBLE_INFRARED and options.method != "mmgl"
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
import torch_htt  # noqa: E402
import torch_ieee  # noqa: E402
import torch_mmgl  # noqa: E402
import torch_tvi_lfm  # noqa: E402
import torch_vi  # noqa: E402

from mmreid_jax.convert.layout import export_state  # noqa: E402
from mmreid_jax.methods import tvi_lfm  # noqa: E402
from mmreid_jax.methods.base import DataFacts, build  # noqa: E402
from mmreid_jax.models import layers, two_stream, vit  # noqa: E402
from mmreid_jax.models.clip import TEXT_TOWERS  # noqa: E402
from mmreid_jax.models.resnet import RESNETS, STAGES  # noqa: E402
from mmreid_jax.training import compilation, optimizers, state, step  # noqa: E402

if "float64" in OPTIONS.precision:
    jax.config.update("jax_enable_x64", True)
    torch.set_default_dtype(torch.float64)
compilation.choose(OPTIONS.compiler)
DEVICE = torch.device("cuda" if OPTIONS.device == "gpu" else "cpu")
PAIRED = OPTIONS.method in VISIBLE_INFRARED
TVI = OPTIONS.method in ("tvi_base", "tvi_lfm")
PEERS: dict[str, Any] = {"htt": torch_htt, "ieee": torch_ieee, "mmgl": torch_mmgl}
PEER: Any = torch_tvi_lfm if TVI else PEERS.get(OPTIONS.method, torch_vi)
# Of MMGL the published one, which random weights need.
RATE = 0.1 if OPTIONS.method == "mmgl" else 1e-3
# Data of the published experiment: RGBNT201, or SYSU-MM01; TVI-LFM sees visible images twice.
MODALITIES = ("rgb", "nir") if PAIRED else ("rgb", "nir", "tir")
VIEWS = ("rgb", "rgb_2", "nir") if TVI else MODALITIES
IMAGE_SIZE = (384, 144) if OPTIONS.method == "deen" else (288, 144) if PAIRED else (256, 128)
CLASSES = 395 if PAIRED else 171
# Ends of the epochs: DDAG weighs its graph by the losses of the epoch before, so the first has one step.
EPOCH_ENDS = (1, 1000)
# Of each size of ResNet the text tower that goes with it, and how many words a caption has.
TOWERS = {"resnet50": "clip_rn50", "resnet_micro": "text_micro"}
WORDS = 20
# Stochastic depth of HTT's ViT, dropout of DDAG's graph attention and of DEEN's maps.
DROP_PATH, DROPOUT, MAP_DROPOUT = 0.1, 0.2, 0.01
BOTH: dict[str, Any] = {
    "data": SimpleNamespace(image_size=IMAGE_SIZE, labels=OPTIONS.method != "mmgl"),
    "init": SimpleNamespace(backbone="", from_mmgl=""),
    # Base is AGW without its additions.
    "method": {"base": "agw", "tvi_base": "tvi_lfm"}.get(OPTIONS.method, OPTIONS.method),
}


class Section(dict[str, Any]):
    """A part of a config that is read by attribute and by key."""

    __getattr__ = dict.__getitem__


def config_htt(setting: Setting) -> Any:
    """The config of HTT's experiment on RGBNT201 as plain objects, with a constant learning rate."""
    model = SimpleNamespace(
        backbone=setting.backbone,
        stride=0,
        drop_path=DROP_PATH * setting.drop,
        side_camera=False,
        side_view=False,
        side_weight=3.0,
        last_stride=1,
        num_classes=0,
        head="linear",
        dtype=PRECISIONS[setting.precision][1],
        remat=setting.remat,
        attention=setting.attention,
        unroll=setting.unroll,
    )
    loss = SimpleNamespace(
        ce_weight=1.0,
        label_smoothing=0.0,
        triplet_weight=1.0,
        triplet_margin=-1.0,
        mmm_weight=0.5,
        mmm_margin=1.0,
        cim_weight=0.5,
        cim_margin=0.5,
        center_weight=0.0,
        grouping="by_label",
    )
    return SimpleNamespace(
        model=model,
        loss=loss,
        train=SimpleNamespace(micro_batches=1, identities_per_batch=setting.batch // OPTIONS.per_identity),
        optim=optimizers.Options(lr=RATE, weight_decay=1e-4, bias_lr_factor=2.0),
        **BOTH,
    )


def config_ieee(setting: Setting) -> Any:
    """The same for IEEE."""
    model = SimpleNamespace(
        backbone=setting.backbone,
        last_stride=1,
        parts=torch_ieee.PARTS,
        part_dim=torch_ieee.PART_WIDTH,
        embed_dim=torch_ieee.EMBEDDING,
        cim=True,
        cim_attention=True,
        rem="code",
        global_from="backbone",
        num_classes=0,
        streams=setting.streams,
        dtype=PRECISIONS[setting.precision][1],
        remat=setting.remat,
    )
    loss = SimpleNamespace(
        name="margin",
        weight_x=1.0,
        weight_m=1.0,
        margin=1.0,
        label_smoothing=0.1,
        grouping="by_label",
    )
    train = SimpleNamespace(
        micro_batches=1,
        identities_per_batch=setting.batch // OPTIONS.per_identity,
        fixbase_epochs=0,
        open_layers=(),
    )
    optim = optimizers.Options(lr=RATE, weight_decay=5e-4, nesterov=True)
    return SimpleNamespace(model=model, loss=loss, train=train, optim=optim, **BOTH)


def config_paired(setting: Setting) -> Any:
    """The same for the visible-infrared methods on SYSU-MM01."""
    model = SimpleNamespace(
        backbone=setting.backbone,
        last_stride=1,
        num_classes=0,
        dtype=PRECISIONS[setting.precision][1],
        remat=setting.remat,
    )
    loss = SimpleNamespace(ce_weight=1.0, label_smoothing=0.0, triplet_weight=1.0, triplet_margin=torch_vi.MARGIN)
    if OPTIONS.method == "hetero_center":
        vars(model).update(strips=torch_vi.STRIPS, embed_dim=torch_vi.STRIP_WIDTH, dropout=0.0)
        vars(loss).update(hc_weight=torch_vi.HC_WEIGHT, distance="l2", margin=0.0, grouping="by_label")
    new_layers: tuple[str, ...] = ()
    if OPTIONS.method in ("base", "agw", "ddag"):
        agw = OPTIONS.method == "agw"
        stages = RESNETS[setting.backbone]["stages"]
        places = [(int(stage[-1]), index) for stage, of_stage in torch_vi.NON_LOCAL.items() for index in of_stage]
        blocks = [(number, index) for number, index in places if index < stages[number - 1]]
        vars(model).update(shared_from=1, non_local=blocks if agw else (), pooling="gem" if agw else "avg")
        vars(model).update(gem_power=3.0)
        vars(loss).update(triplet="weighted" if agw else "batch_hard", triplet_form="code")
        new_layers = ("^(bottleneck|classifier|parts|graph)/",)
    if OPTIONS.method == "ddag":
        vars(model).update(wpa=True, parts=torch_vi.PARTS, graph=True, dropout=DROPOUT * setting.drop)
        vars(model).update(graph_heads=torch_vi.GRAPH_HEADS, graph_dim=torch_vi.GRAPH_WIDTH)
        vars(loss).update(part_weight=1.0, graph_weight=-1.0)
    if OPTIONS.method == "deen":
        vars(model).update(expanded=3, dropout=MAP_DROPOUT * setting.drop)
        vars(loss).update(cpm_weight=torch_vi.CPM_WEIGHT, cpm_margin=torch_vi.CPM_MARGIN, grouping="by_label")
        vars(loss).update(orthogonality_weight=torch_vi.ORTHOGONALITY_WEIGHT)
        new_layers = ("^(bottleneck|classifier)/",)
    identities = setting.batch // OPTIONS.per_identity
    return SimpleNamespace(
        model=model,
        loss=loss,
        train=SimpleNamespace(micro_batches=1, identities_per_batch=identities),
        optim=optimizers.Options(lr=RATE, weight_decay=5e-4, nesterov=True, new_layers=new_layers),
        eval=SimpleNamespace(feature="fc", mirror=False, weights=(1.0, 1.0)),
        **BOTH,
    )


def config_mmgl(setting: Setting) -> Any:
    """The same for MMGL's pre-training on SYSU-MM01."""
    model = SimpleNamespace(
        backbone=setting.backbone,
        last_stride=1,
        shared_from=1,
        stripes=torch_mmgl.STRIPES,
        stripe_gap=0,
        shared_in_pair=True,
        perm_head_hidden=0,
        proj_dim=torch_mmgl.PATCH_WIDTH,
        proj_head="conv_bn_relu",
        proj_shared=False,
        num_classes=0,
        dtype=PRECISIONS[setting.precision][1],
        remat=setting.remat,
    )
    loss = SimpleNamespace(
        perm_weight=1.0,
        perm_reduction="sum",
        sinkhorn_iterations=torch_mmgl.SINKHORN_ITERATIONS,
        sinkhorn_temperature=1.0,
        sinkhorn_noise=0.0,
        sinkhorn_samples=1,
        cl_weight=torch_mmgl.PCC_WEIGHT,
        cl_temperature=torch_mmgl.TEMPERATURE,
        cl_start=0,
        cl_mode="parallel",
        cl_query="both",
        retrieval_temperature=0.0,
        candidate_scope="batch",
        negative_scope="batch",
        exclude_self=False,
        stop_gradient=False,
    )
    return SimpleNamespace(
        model=model,
        loss=loss,
        train=SimpleNamespace(micro_batches=1, identities_per_batch=1),
        optim=optimizers.Options(lr=RATE, weight_decay=5e-4, nesterov=True),
        eval=SimpleNamespace(feature="pool"),
        **BOTH,
    )


def config_tvi(setting: Setting) -> Any:
    """The same for either stage of TVI-LFM on SYSU-MM01."""
    model = Section(
        stage="text" if OPTIONS.method == "tvi_lfm" else "base",
        backbone=setting.backbone,
        last_stride=1,
        gem_power=3.0,
        text_tower=TOWERS[setting.backbone],
        fusion="filter",
        freeze_visual="code",
        separate_norms=False,
        num_classes=0,
        dtype=PRECISIONS[setting.precision][1],
        remat=setting.remat,
    )
    loss = Section(ce_weight=1.0, label_smoothing=0.0, triplet_weight=1.0, triplet_form="code", joint=True)
    loss |= dict.fromkeys((f"{name}_weight" for name in tvi_lfm.OPTIONAL), 0.0)
    groups = SimpleNamespace(
        head_lr_factor=2.0,
        text_lr=RATE,
        text_bias_lr_factor=2.0,
        text_weight_decay=-1.0,
        text_bias_weight_decay=5e-4,
        whole_tower=False,
    )
    identities = setting.batch // OPTIONS.per_identity
    data = SimpleNamespace(
        image_size=IMAGE_SIZE, labels=True, second_views=MODALITIES[:1], text=OPTIONS.method == "tvi_lfm"
    )
    return SimpleNamespace(
        model=model,
        loss=Section(loss),
        groups=groups,
        train=SimpleNamespace(micro_batches=1, identities_per_batch=identities),
        optim=optimizers.Options(name="adam", lr=RATE, weight_decay=5e-4),
        eval=SimpleNamespace(feature="fusion" if OPTIONS.method == "tvi_lfm" else "fc"),
        **{
            **BOTH,
            "data": data,
            "init": Section(backbone="", from_mmgl="", from_base="", clip=""),
        },
    )


def training_images(batch: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """The images of TVI-LFM's step with the channels that they have."""
    del key
    visible, infrared = MODALITIES
    images = batch["images"]
    return {"visible": jnp.concatenate([images[visible], images[f"{visible}_2"]]), "infrared": images[infrared]}


def draw_batch(samples: int) -> dict[str, Any]:
    """A P x K batch of noise: uint8 images by modality [B, H, W, 3], labels [B], where needed tokens [B, 77]."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (samples, *IMAGE_SIZE, 3), np.uint8) for name in VIEWS}
    labels = np.repeat(np.arange(samples // OPTIONS.per_identity), OPTIONS.per_identity).astype(np.int32)
    zeros = np.zeros(samples, np.int32)
    batch = {"images": images, "identity": labels, "camera": zeros, "scene": zeros, "index": zeros}
    if OPTIONS.method == "tvi_lfm":
        tokens = np.zeros((len(MODALITIES), samples, torch_tvi_lfm.LENGTH), np.int32)
        tokens[..., 1 : 1 + WORDS] = rng.integers(0, torch_tvi_lfm.WORDS - 2, (*tokens.shape[:2], WORDS))
        tokens[..., 0], tokens[..., 1 + WORDS] = torch_tvi_lfm.WORDS - 2, torch_tvi_lfm.WORDS - 1
        batch["tokens"] = dict(zip(MODALITIES, tokens, strict=True))
    return batch


def draw_orders(samples: int) -> np.ndarray:
    """Orders of MMGL's stripes that both sides share: int64 [B, S]."""
    return np.random.default_rng(0).permuted(np.tile(np.arange(torch_mmgl.STRIPES), (samples, 1)), axis=1)


class Ours:
    """Our side: the method, its training step and its evaluation step, compiled where first used."""

    def __init__(self, setting: Setting, zeros: float = 0.0) -> None:
        """Starts from fresh weights, in which `zeros` replaces those that are zero."""
        self.setting = setting
        configs = {"htt": config_htt, "ieee": config_ieee, "mmgl": config_mmgl}
        configs |= {"tvi_base": config_tvi, "tvi_lfm": config_tvi}
        config = configs.get(OPTIONS.method, config_paired)(setting)
        self.method: Any = build(config, DataFacts(CLASSES, 1, 1, MODALITIES))
        if OPTIONS.method == "mmgl" and not setting.drop:
            same = dict.fromkeys(two_stream.MODALITIES, jnp.asarray(draw_orders(setting.batch), jnp.int32))
            self.method.orders = lambda key, pairs: same
        if TVI and not setting.drop:
            self.method.training_images = training_images
        self.parallel = step.Parallel(jax.devices()[:1])
        variables = self.method.init(jax.random.key(0))
        variables["params"] = jax.tree.map(lambda x: jnp.where(x == 0, zeros, x), variables["params"])
        batch = draw_batch(setting.batch)
        if setting.precision == "float64":
            variables = jax.tree.map(lambda x: x.astype(float) if jnp.issubdtype(x, jnp.floating) else x, variables)
            batch["images"] = {name: (images / 255 - 0.5) / 0.5 for name, images in batch["images"].items()}
        epoch_ends = np.array(EPOCH_ENDS)
        optimizer = self.method.optimizer(variables["params"], epoch_ends)
        memory = self.method.start_memory(epoch_ends) if hasattr(self.method, "start_memory") else {}
        self.state = self.parallel.place_state(state.create(variables, optimizer, memory))
        self.batch = self.parallel.place_batch(batch)
        self.run = self.parallel.jit_train(step.train_step(self.method.loss, optimizer, seed=0))
        self.embed = self.parallel.jit_embed(step.embed_step(self.method.embed))

    def weights(self) -> tuple[Any, Any]:
        """Parameters and batch statistics as numpy arrays."""
        return step.fetch((self.state.params, self.state.batch_stats))

    def train(self) -> dict[str, Any]:
        """One step; the metrics, not yet computed when this returns."""
        with matmul_precision(self.setting.precision):
            self.state, metrics = self.run(self.state, self.batch)
        return metrics

    def forward(self) -> Any:
        """Evaluation features of the batch."""
        with matmul_precision(self.setting.precision):
            return self.embed(self.state.variables, self.batch)

    @staticmethod
    def wait(result: Any) -> None:
        """Returns when the result is there."""
        jax.block_until_ready(result)


class Theirs:
    """PyTorch's side, with the weights of ours."""

    def __init__(self, setting: Setting, ours: Ours) -> None:
        self.setting = setting
        model = their_network(setting, ours).to(DEVICE)
        if setting.backbone not in vit.SIZES:
            model = model.to(memory_format=torch.channels_last)
        self.losses = model.losses if PAIRED else PEER.losses
        self.optimizer = PEER.optimizer(model, RATE)
        batch = draw_batch(setting.batch)
        self.model: Any = torch.compile(model) if OPTIONS.torch_compile else model
        self.images = [torch.from_numpy(images).to(DEVICE) for images in batch["images"].values()]
        tokens = batch.get("tokens", {})
        self.tokens = [torch.from_numpy(own).long().to(DEVICE) for own in tokens.values()]
        self.labels = torch.from_numpy(batch["identity"]).long().to(DEVICE)

    def parameters(self) -> list[torch.Tensor]:
        """Of the network."""
        return list(self.model.parameters())

    def prepared(self) -> list[torch.Tensor]:
        """Normalised images, NCHW in memory order NHWC (channels_last for the ResNet: its faster layout); tokens."""
        images = [
            ((images.to(torch.get_default_dtype()) / 255 - 0.5) / 0.5).permute(0, 3, 1, 2) for images in self.images
        ]
        return images + self.tokens

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """Arithmetic of this setting."""
        allowed = self.setting.precision in ("tf32", "bfloat16")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.setting.precision == "bfloat16"):
            yield

    def train(self) -> dict[str, Any]:
        """One step; its loss terms."""
        self.model.train()
        with self.precision():
            output = self.model(self.prepared())
        terms = self.losses(output, self.labels, self.setting.batch // OPTIONS.per_identity)
        terms["loss"].backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {name: value.detach() for name, value in terms.items()}

    def forward(self) -> Any:
        """Evaluation features of the batch."""
        self.model.eval()
        with torch.inference_mode(), self.precision():
            return self.model(self.prepared())

    @staticmethod
    def wait(result: Any) -> None:
        """Returns when the result is there."""
        del result
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()


def their_network(setting: Setting, ours: Ours) -> torch.nn.Module:
    """The network in PyTorch, with our weights."""
    if OPTIONS.method != "htt":
        model: Any = paired_network(setting) if PAIRED else torch_ieee.Ieee(STAGES, CLASSES)
        params, batch_stats = ours.weights()
        (layout,) = ours.method.convert_layouts().values()
        entries = export_state(layout, {"params": params, "batch_stats": batch_stats})
        # The authors' files of visible-infrared networks hold parts that these never use, which the model lacks.
        held = model.state_dict().keys() if PAIRED else entries.keys()
        model.load_state_dict({name: torch.from_numpy(np.array(entries[name])) for name in held})
        return model
    if setting.backbone == "resnet50":
        backbone: torch.nn.Module = torch_htt.ResNet(STAGES)
    else:
        size = vit.SIZES[setting.backbone]
        backbone = torch_htt.VisionTransformer(
            IMAGE_SIZE, size.width, size.depth, size.heads, size.patch, DROP_PATH * setting.drop
        )
    model = torch_htt.Htt(backbone, len(MODALITIES), CLASSES)
    model.load(*ours.weights())
    return model


def paired_network(setting: Setting) -> torch.nn.Module:
    """The network of a visible-infrared method in PyTorch."""
    sizes = RESNETS[setting.backbone]["stages"], RESNETS[setting.backbone]["width"], CLASSES
    if OPTIONS.method == "mmgl":
        return torch_mmgl.Mmgl(*sizes[:2], None if setting.drop else torch.from_numpy(draw_orders(setting.batch)))
    if TVI:
        tower = TEXT_TOWERS[TOWERS[setting.backbone]] if OPTIONS.method == "tvi_lfm" else None
        return torch_tvi_lfm.TviLfm(*sizes, tower, setting.drop)
    if OPTIONS.method == "ddag":
        return torch_vi.Ddag(*sizes, DROPOUT * setting.drop, EPOCH_ENDS)
    if OPTIONS.method == "deen":
        return torch_vi.Deen(*sizes, MAP_DROPOUT * setting.drop)
    return {"hetero_center": torch_vi.HeteroCenter, "base": torch_vi.Base, "agw": torch_vi.Agw}[OPTIONS.method](*sizes)


def matmul_precision(precision: str) -> Any:
    """Context with the matrix products of a precision of ours."""
    name = PRECISIONS[precision][0]
    return jax.default_matmul_precision(name) if name and OPTIONS.device == "gpu" else contextlib.nullcontext()


def turn(function: Callable[[], Any], wait: Callable[[Any], None]) -> Seconds:
    """Seconds per call of one turn of `OPTIONS.inner` calls."""
    try:
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(OPTIONS.inner):
            result = function()
        wait(result)
        spent = time.perf_counter() - wall, time.process_time() - processor
    except (torch.OutOfMemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory from None
    return Seconds(spent[0] / OPTIONS.inner, spent[1] / OPTIONS.inner)


def in_turn(sides: Mapping[str, tuple[Callable[[], Any], Callable[[Any], None]]]) -> dict[str, Seconds | None]:
    """The fastest turn of every side, after one that does not count; None for a side that did not fit."""
    best: dict[str, Seconds | None] = {}
    for repeat in range(1 + OPTIONS.repeats):
        for name, (function, wait) in sides.items():
            if repeat and best[name] is None:
                continue
            try:
                spent = turn(function, wait)
            except OutOfMemory:
                best[name] = None
                continue
            before = best.get(name)
            counts = repeat > 1 and before is not None
            best[name] = Seconds(*map(min, before, spent)) if counts and before is not None else spent
    return best


def memory(function: Callable[[], Any], wait: Callable[[Any], None]) -> float:
    """GiB by which the resident memory of this process rises during one call, at most (Linux)."""
    gc.collect()
    # What earlier calls have freed and the C library has kept would hide as much of this one.
    ctypes.CDLL(None).malloc_trim(0)
    # Sets the peak to what is held now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    wait(function())
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """Resident memory of this process in GiB: ``VmRSS`` now, ``VmHWM`` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 2**20


def flops_of_image(backbone: str) -> float:
    """Floating-point operations of one forward pass of one image; a training step has three times as many.

    Of IEEE the convolutions on whole maps are counted, backbone and interaction.
    """
    if backbone in vit.SIZES:
        size = vit.SIZES[backbone]
        patches = (IMAGE_SIZE[0] // size.patch) * (IMAGE_SIZE[1] // size.patch)
        tokens = 1 + patches
        weights = (4 + 2 * size.mlp_ratio) * size.width**2
        blocks = size.depth * (2 * tokens * weights + 4 * tokens**2 * size.width)
        return blocks + 2 * patches * 3 * size.patch**2 * size.width
    stages, first_width = RESNETS[backbone]["stages"], RESNETS[backbone]["width"]
    pixels = IMAGE_SIZE[0] * IMAGE_SIZE[1] / 4
    total = 2 * pixels * 49 * 3 * first_width
    pixels, channels = pixels / 4, first_width
    for number, depth in enumerate(stages):
        width = first_width * 2**number
        for index in range(depth):
            stride = 2 if index == 0 and number in (1, 2) else 1
            total += 2 * pixels * channels * width
            pixels /= stride**2
            total += 2 * pixels * (9 * width * width + 4 * width * width)
            total += 2 * pixels * channels * 4 * width if index == 0 else 0
            channels = 4 * width
    return total + (4 * pixels * channels**2 if OPTIONS.method == "ieee" else 0)


def work_of(kind: str, setting: Setting, images: int) -> float:
    """Floating-point operations of a step or a forward pass; the backward pass has twice those of the forward one."""
    passes = 3 if kind == "train" else 1
    work = images * flops_of_image(setting.backbone)
    if OPTIONS.method != "tvi_lfm":
        return work * passes
    size, tokens = TEXT_TOWERS[TOWERS[setting.backbone]], torch_tvi_lfm.LENGTH
    layer = 2 * tokens * 12 * size["width"] ** 2 + 4 * tokens**2 * size["width"]
    # The visual network is not trained, and has no backward pass.
    return work + passes * len(MODALITIES) * setting.batch * size["depth"] * layer


@functools.cache
def peak_flops(precision: str) -> float:
    """Operations per second of a large square matrix product (JAX), the yardstick of the share of peak."""
    size = 8192 if OPTIONS.device == "gpu" else 1536
    x = jnp.ones((size, size), PRECISIONS[precision][1])
    with matmul_precision(precision):
        multiply = jax.jit(jnp.matmul)
        seconds = in_turn({"x": (lambda: multiply(x, x), jax.block_until_ready)})["x"]
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


def settings() -> list[Setting]:
    """The settings that the command line asks for."""
    first = [Setting(OPTIONS.backbone, batch, p) for p in OPTIONS.precision for batch in OPTIONS.batch]
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
        setting = Setting(OPTIONS.backbone, min(OPTIONS.batch), precision, drop=False)
        # Some layers begin as the identity, with weights of zero; here all of them count. MMGL's orders are given.
        ours = Ours(setting, zeros=0.1)
        theirs = Theirs(setting, ours)
        sizes = [sum(x.size for x in jax.tree.leaves(ours.state.params)), sum(x.numel() for x in theirs.parameters())]
        for number in range(3):
            a, b = step.fetch(ours.train()), {name: float(value) for name, value in theirs.train().items()}
            difference = np.max([abs(float(a[name]) - value) for name, value in b.items()])
            row([precision, *sizes, number, f"{float(a['loss']):.6f}", f"{b['loss']:.6f}", f"{difference:.1e}"])


def steps(kind: str) -> None:
    """Prints seconds, ratios, images per second and share of peak of ``train`` or ``forward``."""
    title = {"train": "Training step", "forward": "Forward pass (evaluation)"}[kind]
    where = f"{OPTIONS.device}, {len(os.sched_getaffinity(0))} cores"
    variant = {"htt": ("attention", "unroll"), "ieee": ("streams",)}.get(OPTIONS.method, ())
    head = ["samples", "precision", *variant, "remat", "ours s", "PyTorch s", "ratio"]
    head += ["ours cpu-s", "PyTorch cpu-s", "ratio"] if OPTIONS.device == "cpu" else []
    head += ["ours GiB", "PyTorch GiB"] if OPTIONS.device == "cpu" else []
    head += ["ours images/s", "PyTorch images/s", "ours, share of peak", "PyTorch, share of peak"]
    table(f"{title}: {OPTIONS.method}, {OPTIONS.backbone}, {where}", head)
    for setting in settings():
        ours = Ours(setting)
        theirs = Theirs(setting, ours)
        pairs = {"jax": ours, "torch": theirs}
        sides = {name: (getattr(pair, kind), pair.wait) for name, pair in pairs.items() if OPTIONS.only in (None, name)}
        best = in_turn(sides)
        a, b = best.get("jax"), best.get("torch")
        images = setting.batch * len(VIEWS if kind == "train" else MODALITIES)
        work = work_of(kind, setting, images)
        cells: list[Any] = [getattr(setting, name) for name in ("batch", "precision", *variant, "remat")]
        cells += compared(a and a.wall, b and b.wall)
        cells += compared(a and a.processor, b and b.processor) if OPTIONS.device == "cpu" else []
        if OPTIONS.device == "cpu":
            cells += [f"{memory(*sides[name]):.2f}" if best.get(name) else "-" for name in pairs]
        cells += [f"{images / side.wall:.1f}" if side else "-" for side in (a, b)]
        peak = peak_flops(setting.precision)
        cells += [f"{100 * work / side.wall / peak:.0f} %" if side else "-" for side in (a, b)]
        row(cells)
        del ours, theirs, pairs, sides
        gc.collect()
        if DEVICE.type == "cuda":
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
            shape = (batch * len(MODALITIES), tokens, 3 * size.width)
            qkv = jax.random.normal(jax.random.key(0), shape, dtype)
            sides = {"ours (plain)": ours_attention(lambda x: layers.attention(x, size.heads, width**-0.5), qkv)}
            for name in OPTIONS.attention:
                if name != "plain":
                    sides[f"jax.nn.dot_product_attention, {name}"] = ours_attention(library_attention(name), qkv)
            sides["PyTorch scaled_dot_product_attention"] = their_attention(qkv)
            with matmul_precision(precision):
                for name, seconds in in_turn(sides).items():
                    row([batch, precision, name, f"{1e3 * seconds.wall:.3f}" if seconds else "-"])


def library_attention(implementation: str) -> Callable[[Any], Any]:
    """jax.nn.dot_product_attention of a joint projection."""
    heads = vit.SIZES["vit_base"].heads

    def attend(x: Any) -> Any:
        q, k, v = jnp.moveaxis(x.reshape(*x.shape[:2], 3, heads, -1), 2, 0)
        out = jax.nn.dot_product_attention(q, k, v, implementation=implementation)  # type: ignore[arg-type]
        return out.reshape(*x.shape[:2], -1)

    return attend


def ours_attention(attend: Callable[[Any], Any], qkv: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """A timed side: the gradient of the sum of squares of an attention."""
    gradient = jax.jit(jax.grad(lambda x: jnp.square(attend(x)).sum()))
    return lambda: gradient(qkv), jax.block_until_ready


def their_attention(qkv: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """The same in PyTorch."""
    heads = vit.SIZES["vit_base"].heads
    x = torch.from_numpy(np.array(qkv, np.float32)).to(DEVICE, getattr(torch, qkv.dtype.name)).requires_grad_()

    def run() -> None:
        q, k, v = x.reshape(*x.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        F.scaled_dot_product_attention(q, k, v).square().sum().backward()

    return run, Theirs.wait


def compilation() -> None:
    """Prints what compiling the training step costs with a scan over the blocks and with a loop (unroll = depth)."""
    head = ["samples", "unroll", "trace s", "compile s", "compile cpu-s", "temporary memory"]
    table(f"Compilation of the training step: {OPTIONS.backbone}", head)
    depth = vit.SIZES[OPTIONS.backbone].depth if OPTIONS.backbone in vit.SIZES else 1
    for unroll in sorted({1, depth, *OPTIONS.unroll}):
        ours = Ours(Setting(OPTIONS.backbone, min(OPTIONS.batch), OPTIONS.precision[0], unroll=unroll))
        start = time.perf_counter()
        lowered = ours.run.lower(ours.state, ours.batch)
        traced, processor = time.perf_counter(), time.process_time()
        compiled = lowered.compile()
        wall, processor = time.perf_counter() - traced, time.process_time() - processor
        memory = compiled.memory_analysis().temp_size_in_bytes / 2**30
        cells = [f"{traced - start:.1f}", f"{wall:.1f}", f"{processor:.1f}", f"{memory:.2f} GiB"]
        row([ours.setting.batch, unroll, *cells])


def peak() -> None:
    """Prints the speed of a large matrix product."""
    table(f"A large matrix product: {OPTIONS.device}", ["precision", "TFLOP/s"])
    for precision in OPTIONS.precision:
        row([precision, f"{peak_flops(precision) / 1e12:.3f}"])


def main() -> None:
    """Runs the sections of the command line."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    print(f"jax {jax.__version__}, torch {torch.__version__}, {name}, {jax.devices()[0].device_kind}")
    run = {
        "check": check,
        "train": lambda: steps("train"),
        "forward": lambda: steps("forward"),
        "attention": attention,
        "compile": compilation,
        "peak": peak,
    }
    for section in OPTIONS.sections:
        run[section]()


if __name__ == "__main__":
    main()
