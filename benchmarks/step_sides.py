"""The two sides that `step_time.py` compares: our training step, and the same network in plain PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import step_configs
import torch
import torch_clip
import torch_htt
import torch_ieee
import torch_mmgl
import torch_tvi_lfm
import torch_vi
from step_configs import DROP_PATH, DROPOUT, MAP_DROPOUT, ON_CLIP, PRECISIONS, TEXT_TOWERS_OF, Setting

from mmreid_jax.convert.layout import export_state
from mmreid_jax.methods import base
from mmreid_jax.models import two_stream, vit
from mmreid_jax.models.clip import TEXT_TOWERS
from mmreid_jax.models.resnet import RESNETS, STAGES
from mmreid_jax.training import state, step

TVI_LFM = ("tvi_base", "tvi_lfm")
"""Methods whose peer is `torch_tvi_lfm`: the two stages of TVI-LFM."""
# Ends of the epochs: DDAG weighs its graph by the losses of the epoch before, so the first has one step.
EPOCH_ENDS = (1, 1000)
WORDS = 20
"""Words of a caption."""


def device() -> torch.device:
    """PyTorch's device: of the kind that JAX uses."""
    return torch.device("cuda" if jax.default_backend() == "gpu" else "cpu")


def peer_of(setting: Setting) -> Any:
    """The module with PyTorch's side of a method."""
    if setting.method in TVI_LFM:
        return torch_tvi_lfm
    if setting.method in ON_CLIP:
        return torch_clip
    return {"htt": torch_htt, "ieee": torch_ieee, "mmgl": torch_mmgl}.get(setting.method, torch_vi)


def matmul_precision(precision: str) -> Any:
    """Context with the matrix products of a precision of ours."""
    name = PRECISIONS[precision][0]
    return jax.default_matmul_precision(name) if name and jax.default_backend() == "gpu" else contextlib.nullcontext()


def training_images(batch: Mapping[str, Any], key: Any) -> dict[str, Any]:
    """The images of TVI-LFM's step with the channels that they have."""
    del key
    images = batch["images"]
    return {"visible": jnp.concatenate([images["rgb"], images["rgb_2"]]), "infrared": images["nir"]}


def draw_batch(setting: Setting) -> dict[str, Any]:
    """A P x K batch of noise: uint8 images by modality [B, H, W, 3], labels [B], where needed tokens [B, 77]."""
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (setting.batch, *setting.image_size, 3), np.uint8) for name in setting.views}
    labels = np.repeat(np.arange(setting.identities), setting.per_identity).astype(np.int32)
    zeros = np.zeros(setting.batch, np.int32)
    batch = {"images": images, "identity": labels, "camera": zeros, "scene": zeros, "index": zeros}
    if setting.method == "tvi_lfm":
        tokens = np.zeros((len(setting.modalities), setting.batch, torch_tvi_lfm.LENGTH), np.int32)
        tokens[..., 1 : 1 + WORDS] = rng.integers(0, torch_tvi_lfm.WORDS - 2, (*tokens.shape[:2], WORDS))
        tokens[..., 0], tokens[..., 1 + WORDS] = torch_tvi_lfm.WORDS - 2, torch_tvi_lfm.WORDS - 1
        batch["tokens"] = dict(zip(setting.modalities, tokens, strict=True))
    return batch


def draw_orders(samples: int) -> np.ndarray:
    """Orders of MMGL's stripes that both sides share: int64 [B, S]."""
    return np.random.default_rng(0).permuted(np.tile(np.arange(torch_mmgl.STRIPES), (samples, 1)), axis=1)


class Ours:
    """Our side: the method, its training step and its evaluation step, compiled where first used."""

    def __init__(self, setting: Setting, zeros: float = 0.0) -> None:
        """Starts from fresh weights, in which `zeros` replaces those that are zero."""
        self.setting = setting
        facts = base.DataFacts(setting.classes, 1, 1, setting.modalities)
        self.method: Any = base.build(step_configs.config(setting), facts)
        if setting.method == "mmgl" and not setting.drop:
            same = dict.fromkeys(two_stream.MODALITIES, jnp.asarray(draw_orders(setting.batch), jnp.int32))
            self.method.orders = lambda key, pairs: same
        if setting.method in TVI_LFM and not setting.drop:
            self.method.training_images = training_images
        self.parallel = step.Parallel(jax.devices()[:1])
        variables = self.method.init(jax.random.key(0))
        variables["params"] = jax.tree.map(lambda x: jnp.where(x == 0, zeros, x), variables["params"])
        batch = draw_batch(setting)
        if setting.precision == "float64":
            variables = jax.tree.map(lambda x: x.astype(float) if jnp.issubdtype(x, jnp.floating) else x, variables)
            batch["images"] = {name: (images / 255 - 0.5) / 0.5 for name, images in batch["images"].items()}
        epoch_ends = np.array(EPOCH_ENDS)
        optimizer = self.method.optimizer(variables["params"], epoch_ends)
        memory = base.start_memory(self.method, epoch_ends)
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
    """PyTorch's side, with the weights of ours; on a GPU if PyTorch finds one and JAX uses it, too."""

    def __init__(self, setting: Setting, ours: Ours, compiled: bool = False) -> None:
        """`compiled`: by PyTorch's compiler."""
        self.setting, self.device = setting, device()
        model = their_network(setting, ours).to(self.device)
        if setting.backbone not in vit.SIZES:
            model = model.to(memory_format=torch.channels_last)
        peer = peer_of(setting)
        self.losses = model.losses if setting.paired else peer.losses
        self.optimizer = peer.optimizer(model, setting.rate)
        batch = draw_batch(setting)
        self.model: Any = torch.compile(model) if compiled else model
        self.images = [torch.from_numpy(images).to(self.device) for images in batch["images"].values()]
        tokens = batch.get("tokens", {})
        self.tokens = [torch.from_numpy(each).long().to(self.device) for each in tokens.values()]
        self.labels = torch.from_numpy(batch["identity"]).long().to(self.device)

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
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.setting.precision == "bfloat16"):
            yield

    def train(self) -> dict[str, Any]:
        """One step; its loss terms."""
        self.model.train()
        with self.precision():
            output = self.model(self.prepared())
        terms = self.losses(output, self.labels, self.setting.identities)
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
        if device().type == "cuda":
            torch.cuda.synchronize()


def their_network(setting: Setting, ours: Ours) -> torch.nn.Module:
    """The network in PyTorch, with our weights."""
    if setting.method != "htt":
        model: Any = clip_network(setting) if setting.method in ON_CLIP else None
        if model is None:
            model = paired_network(setting) if setting.paired else torch_ieee.Ieee(STAGES, setting.classes)
        params, batch_stats = ours.weights()
        (layout,) = ours.method.convert_layouts().values()
        entries = export_state(layout, {"params": params, "batch_stats": batch_stats})
        # The authors' files of many networks hold parts that these never use, which the model lacks.
        held = entries.keys() if setting.method == "ieee" else model.state_dict().keys()
        model.load_state_dict({name: torch.from_numpy(np.array(entries[name])) for name in held})
        return model
    if setting.backbone == "resnet50":
        backbone: torch.nn.Module = torch_htt.ResNet(STAGES)
    else:
        size = vit.SIZES[setting.backbone]
        backbone = torch_htt.VisionTransformer(
            setting.image_size, size.width, size.depth, size.heads, size.patch, DROP_PATH * setting.drop
        )
    model = torch_htt.Htt(backbone, len(setting.modalities), setting.classes)
    model.load(*ours.weights())
    return model


def clip_network(setting: Setting) -> torch.nn.Module:
    """DeMo or MDReID in PyTorch."""
    sizes = vit.SIZES[setting.backbone], setting.image_size, setting.classes
    if setting.method == "mdreid":
        return torch_clip.MDReID(*sizes)
    return torch_clip.DeMo(*sizes, torch_clip.QUERY_DROPOUT * setting.drop)


def paired_network(setting: Setting) -> torch.nn.Module:
    """The network of a visible-infrared method in PyTorch."""
    sizes = RESNETS[setting.backbone]["stages"], RESNETS[setting.backbone]["width"], setting.classes
    if setting.method == "mmgl":
        return torch_mmgl.Mmgl(*sizes[:2], None if setting.drop else torch.from_numpy(draw_orders(setting.batch)))
    if setting.method in TVI_LFM:
        tower = TEXT_TOWERS[TEXT_TOWERS_OF[setting.backbone]] if setting.method == "tvi_lfm" else None
        return torch_tvi_lfm.TviLfm(*sizes, tower, setting.drop)
    if setting.method == "ddag":
        return torch_vi.Ddag(*sizes, DROPOUT * setting.drop, EPOCH_ENDS)
    if setting.method == "deen":
        return torch_vi.Deen(*sizes, MAP_DROPOUT * setting.drop)
    return {"hetero_center": torch_vi.HeteroCenter, "base": torch_vi.Base, "agw": torch_vi.Agw}[setting.method](*sizes)
