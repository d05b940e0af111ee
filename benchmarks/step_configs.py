"""The published experiments as configs of plain objects, for `step_time.py`: no file of ``configs/`` and no data stack.

All have a constant learning rate, and sizes of the published data: RGBNT201, or SYSU-MM01 for visible-infrared methods.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch_clip
import torch_ieee
import torch_mmgl
import torch_vi

from mmreid_jax.methods import tvi_lfm
from mmreid_jax.models.resnet import RESNETS
from mmreid_jax.training import optimizers

VISIBLE_INFRARED = ("hetero_center", "base", "agw", "ddag", "deen", "mmgl", "tvi_base", "tvi_lfm")
ON_CLIP = ("demo_moe", "mdreid")
TEXT_TOWERS_OF = {"resnet50": "clip_rn50", "resnet_micro": "text_micro"}
"""Size of ResNet -> the text tower that goes with it."""
# JAX's name of each precision's matrix products; the type of the computation beside it.
PRECISIONS = {
    "float32": ("highest", "float32"),
    "tf32": ("tensorfloat32", "float32"),
    "bfloat16": (None, "bfloat16"),
    "float64": (None, "float64"),
}
# Stochastic depth of HTT's ViT, dropout of DDAG's graph attention and of DEEN's maps.
DROP_PATH, DROPOUT, MAP_DROPOUT = 0.1, 0.2, 0.01


class Setting(NamedTuple):
    """What one row of a table measures.

    Attributes:
      method: one of ``htt``, ``ieee``, `ON_CLIP` and `VISIBLE_INFRARED`.
      backbone: its backbone.
      batch: samples, each an image of every modality.
      per_identity: samples of an identity.
      precision: one of `PRECISIONS`.
      drop: with what is drawn in each step: stochastic depth, dropout, orders of stripes, channels of images.
      attention, unroll, streams: variants of our side.
      remat: our side recomputes the blocks in the backward pass.
    """

    method: str
    backbone: str
    batch: int
    per_identity: int
    precision: str
    drop: bool = True
    attention: str = "plain"
    unroll: int = 1
    remat: bool = False
    streams: str = "loop"

    @property
    def identities(self) -> int:
        """Identities in a batch."""
        return self.batch // self.per_identity

    @property
    def paired(self) -> bool:
        """Whether a sample is a visible and an infrared image."""
        return self.method in VISIBLE_INFRARED

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of the published data."""
        return ("rgb", "nir") if self.paired else ("rgb", "nir", "tir")

    @property
    def views(self) -> tuple[str, ...]:
        """Images of a sample in training: TVI-LFM sees the visible one twice."""
        return ("rgb", "rgb_2", "nir") if self.method in ("tvi_base", "tvi_lfm") else self.modalities

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        if self.method == "deen":
            return 384, 144
        return (288, 144) if self.paired else (256, 128)

    @property
    def classes(self) -> int:
        """Training identities of the published data."""
        return 395 if self.paired else 171

    @property
    def rate(self) -> float:
        """The learning rate; of MMGL the published one, which random weights need."""
        return 0.1 if self.method == "mmgl" else 1e-3


def config(setting: Setting) -> Any:
    """The config of the method of a setting."""
    makers = {"htt": _htt, "ieee": _ieee, "mmgl": _mmgl, "tvi_base": _tvi, "tvi_lfm": _tvi}
    makers |= dict.fromkeys(ON_CLIP, _on_clip)
    return makers.get(setting.method, _paired)(setting)


def _shared(setting: Setting) -> dict[str, Any]:
    """What all configs have alike."""
    return {
        "data": SimpleNamespace(image_size=setting.image_size, labels=setting.method != "mmgl"),
        "init": SimpleNamespace(backbone="", from_mmgl=""),
        # Base is AGW without its additions.
        "method": {"base": "agw", "tvi_base": "tvi_lfm"}.get(setting.method, setting.method),
    }


class Section(dict[str, Any]):
    """A part of a config that is read by attribute and by key."""

    __getattr__ = dict.__getitem__


def _htt(setting: Setting) -> Any:
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
        train=SimpleNamespace(micro_batches=1, identities_per_batch=setting.identities),
        optim=optimizers.OptimizerOptions(lr=setting.rate, weight_decay=1e-4, bias_lr_factor=2.0),
        **_shared(setting),
    )


def _ieee(setting: Setting) -> Any:
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
        identities_per_batch=setting.identities,
        fixbase_epochs=0,
        open_layers=(),
    )
    optim = optimizers.OptimizerOptions(lr=setting.rate, weight_decay=5e-4, nesterov=True)
    return SimpleNamespace(model=model, loss=loss, train=train, optim=optim, **_shared(setting))


def _on_clip(setting: Setting) -> Any:
    """The same for DeMo and MDReID."""
    model = SimpleNamespace(
        backbone=setting.backbone,
        side_camera=True,
        side_weight=1.0,
        num_classes=0,
        dtype=PRECISIONS[setting.precision][1],
        remat=setting.remat,
        attention=setting.attention,
        unroll=setting.unroll,
    )
    loss = SimpleNamespace(ce_weight=torch_clip.CE_WEIGHT, label_smoothing=torch_clip.SMOOTHING, triplet_weight=1.0)
    if setting.method == "demo_moe":
        vars(model).update(global_local=True, fusion="experts", heads=torch_clip.HEADS, joint_head=True)
        vars(model).update(dropout=torch_clip.QUERY_DROPOUT * setting.drop)
    else:
        vars(loss).update(shared_weight=torch_clip.SHARED_WEIGHT)
        vars(loss).update(orthogonality_weight=torch_clip.ORTHOGONALITY_WEIGHT)
        vars(loss).update(disentangling_weight=torch_clip.DISENTANGLING_WEIGHT)
    new_layers = (
        "^(?!backbone/)",
        "^backbone/(sie|pos)_embed" if setting.method == "mdreid" else "^backbone/sie_embed",
    )
    return SimpleNamespace(
        model=model,
        loss=loss,
        train=SimpleNamespace(micro_batches=1, identities_per_batch=setting.identities, missing_modalities=0.0),
        optim=optimizers.OptimizerOptions(
            name="adam",
            lr=setting.rate,
            weight_decay=torch_clip.WEIGHT_DECAY,
            bias_lr_factor=torch_clip.BIAS_FACTOR,
            new_layers=new_layers,
            base_lr_factor=torch_clip.TRUNK_FACTOR,
        ),
        eval=SimpleNamespace(feature="all"),
        **_shared(setting),
    )


def _paired(setting: Setting) -> Any:
    """The same for the visible-infrared methods on SYSU-MM01."""
    model = SimpleNamespace(
        backbone=setting.backbone,
        last_stride=1,
        num_classes=0,
        dtype=PRECISIONS[setting.precision][1],
        remat=setting.remat,
    )
    loss = SimpleNamespace(ce_weight=1.0, label_smoothing=0.0, triplet_weight=1.0, triplet_margin=torch_vi.MARGIN)
    if setting.method == "hetero_center":
        vars(model).update(strips=torch_vi.STRIPS, embed_dim=torch_vi.STRIP_WIDTH, dropout=0.0)
        vars(loss).update(hc_weight=torch_vi.HC_WEIGHT, distance="l2", margin=0.0, grouping="by_label")
    new_layers: tuple[str, ...] = ()
    if setting.method in ("base", "agw", "ddag"):
        agw = setting.method == "agw"
        stages = RESNETS[setting.backbone]["stages"]
        places = [(int(stage[-1]), index) for stage, of_stage in torch_vi.NON_LOCAL.items() for index in of_stage]
        blocks = [(number, index) for number, index in places if index < stages[number - 1]]
        vars(model).update(shared_from=1, non_local=blocks if agw else (), pooling="gem" if agw else "avg")
        vars(model).update(gem_power=3.0)
        vars(loss).update(triplet="weighted" if agw else "batch_hard", triplet_form="code")
        new_layers = ("^(bottleneck|classifier|parts|graph)/",)
    if setting.method == "ddag":
        vars(model).update(wpa=True, parts=torch_vi.PARTS, graph=True, dropout=DROPOUT * setting.drop)
        vars(model).update(graph_heads=torch_vi.GRAPH_HEADS, graph_dim=torch_vi.GRAPH_WIDTH)
        vars(loss).update(part_weight=1.0, graph_weight=-1.0)
    if setting.method == "deen":
        vars(model).update(expanded=3, dropout=MAP_DROPOUT * setting.drop)
        vars(loss).update(cpm_weight=torch_vi.CPM_WEIGHT, cpm_margin=torch_vi.CPM_MARGIN, grouping="by_label")
        vars(loss).update(orthogonality_weight=torch_vi.ORTHOGONALITY_WEIGHT)
        new_layers = ("^(bottleneck|classifier)/",)
    return SimpleNamespace(
        model=model,
        loss=loss,
        train=SimpleNamespace(micro_batches=1, identities_per_batch=setting.identities),
        optim=optimizers.OptimizerOptions(lr=setting.rate, weight_decay=5e-4, nesterov=True, new_layers=new_layers),
        eval=SimpleNamespace(feature="fc", mirror=False, weights=(1.0, 1.0)),
        **_shared(setting),
    )


def _mmgl(setting: Setting) -> Any:
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
        optim=optimizers.OptimizerOptions(lr=setting.rate, weight_decay=5e-4, nesterov=True),
        eval=SimpleNamespace(feature="pool"),
        **_shared(setting),
    )


def _tvi(setting: Setting) -> Any:
    """The same for either stage of TVI-LFM on SYSU-MM01."""
    model = Section(
        stage="text" if setting.method == "tvi_lfm" else "base",
        backbone=setting.backbone,
        last_stride=1,
        gem_power=3.0,
        text_tower=TEXT_TOWERS_OF[setting.backbone],
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
        text_lr=setting.rate,
        text_bias_lr_factor=2.0,
        text_weight_decay=-1.0,
        text_bias_weight_decay=5e-4,
        whole_tower=False,
    )
    data = SimpleNamespace(
        image_size=setting.image_size,
        labels=True,
        second_views=setting.modalities[:1],
        text=setting.method == "tvi_lfm",
    )
    return SimpleNamespace(
        model=model,
        loss=Section(loss),
        groups=groups,
        train=SimpleNamespace(micro_batches=1, identities_per_batch=setting.identities),
        optim=optimizers.OptimizerOptions(name="adam", lr=setting.rate, weight_decay=5e-4),
        eval=SimpleNamespace(feature="fusion" if setting.method == "tvi_lfm" else "fc"),
        **{
            **_shared(setting),
            "data": data,
            "init": Section(backbone="", from_mmgl="", from_base="", clip=""),
        },
    )
