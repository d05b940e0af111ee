"""Says in words what a PyTorch state_dict looks like, for messages about files given to the wrong layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mmreid_jax.errors import printable

# A pattern that some name of the file matches -> family. The first that matches counts, so the special stand above the
# general. Names follow the authors' files.
FAMILIES: tuple[tuple[str, str], ...] = (
    (r"visible_net\.visible\.", "a Hetero-Center network"),
    (r"DEE\.FC\d", "a DEEN network"),
    (r"generalFusion\.moe\.", "a DeMo network"),
    (r"BACKBONE\.base\.add_image_token", "an MDReID network"),
    (r"visible_module\.visible\.", "a two-stream network (AGW, DDAG, MMGL)"),
    (r"convAvgRest\.", "an IEEE network (three ResNets with cross-modal interaction)"),
    (r"base_model\.visual\.", "a TVI-LFM network"),
    (r"base\.blocks\.\d+\.", "a trained HTT network on a ViT"),
    (r"base\.layer\d+\.\d+\.", "a trained HTT network on a ResNet"),
    (r"visual\.transformer\.resblocks\.", "a CLIP network with a ViT"),
    (r"visual\.layer\d+\.", "a CLIP network with a ResNet"),
    (r"(text_model|vision_model)\.", "a CLIP network of Hugging Face"),
    (r"encoder\.layer\.\d+\.attention", "a transformer of Hugging Face"),
    (r"blocks\.\d+\.attn\.", "a timm ViT"),
    (r"layer\d+\.\d+\.conv1\.", "a torchvision ResNet"),
)
_BLOCK = re.compile(r"(?:blocks|resblocks)\.(\d+)\.|layer(\d+)\.(\d+)\.conv1\.weight")
_RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "ResNet-18",
    ((3, 4, 6, 3), False): "ResNet-34",
    ((3, 4, 6, 3), True): "ResNet-50",
    ((3, 4, 23, 3), True): "ResNet-101",
    ((3, 8, 36, 3), True): "ResNet-152",
}


def looks_like(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The family of a state_dict, its depth and width: "a timm ViT of 12 blocks, width 768".

    Args:
      shapes: entry name -> shape.
    """
    if not shapes:
        return "nothing: it holds no arrays"
    family = next((words for pattern, words in FAMILIES if any(re.search(pattern, name) for name in shapes)), None)
    if family is None:
        return f"nothing that is known here (its first key is {printable(next(iter(shapes)))})"
    return family + _size(shapes, "ViT" in family or "transformer" in family)


def _size(shapes: Mapping[str, tuple[int, ...]], transformer: bool) -> str:
    found = [match for match in map(_BLOCK.search, shapes) if match]
    if transformer:
        blocks = {match[1] for match in found if match[1] is not None}
        width = next((shape[-1] for name, shape in shapes.items() if name.endswith("cls_token") and shape), None)
        count = "1 block" if len(blocks) == 1 else f"{len(blocks)} blocks"
        return f" of {count}" + (f", width {width}" if width else "") if blocks else ""
    stages = _stages((int(match[2]), int(match[3])) for match in found if match[2] is not None)
    deep = any(re.search(r"layer1\.0\.conv3\.weight", name) for name in shapes)
    if not stages:
        return ""
    known = _RESNETS.get((stages, deep))
    return f" ({known})" if known else f" of {'-'.join(map(str, stages))} blocks"


def _stages(blocks: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Blocks per stage, from (stage, block) of every block."""
    unique = set(blocks)
    return tuple(sum(stage == number for number, _ in unique) for stage in sorted({number for number, _ in unique}))
