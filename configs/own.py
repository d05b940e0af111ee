"""One's own images, as ``prepare --folder`` or ``--csv`` has made them; docs/own_data.md has whole examples.

    python main.py --config configs/own.py --config.data.dataset=own:NAME

What is there decides what is trained:
    one spectrum                         one-stream AGW on a ResNet-50; configs/own.py:vit: HTT's baseline on a ViT-B/16
    aligned spectra, two or three        HTT on a ResNet-50; :vit: on a ViT-B/16
    visible and infrared, not aligned    two-stream AGW on a ResNet-50
With weights (--config.init.backbone=resnet50-19c8e357.pth, for :vit jx_vit_base_p16_224-80ecf9dd.pth) the networks,
sizes and schedules are the published ones. Without, a small variant starts from the trunk in the package,
drawn/resnet_mini, which knows drawn people alone, and trains in minutes on two CPU cores; :vit then starts from random
numbers. ImageNet weights do better.
"""

from ml_collections import ConfigDict

from configs.systems import agw, htt
from mmreid_jax.flags import given
from mmreid_jax.paths import default_data_dir, own_description, own_names, read_json

METHODS = ("resnet", "vit")
"""What the argument may be: the backbone."""


def get_config(backbone: str = "resnet") -> ConfigDict:
    if backbone not in METHODS:
        raise ValueError(f"there is no own.py:{backbone}; choose one of {', '.join(METHODS)}")
    data_dir = given("data.data_dir") or default_data_dir()
    known = own_names(data_dir)
    dataset = given("data.dataset") or (known[0] if len(known) == 1 else "own:mine")
    spectra, aligned, people = _there(dataset, data_dir)
    if not aligned:
        config = _two_stream()
    elif spectra > 1 or backbone == "vit":
        config = _together(spectra, backbone)
    else:
        config = _one_stream()
    config.data.dataset = dataset
    if not given("init.backbone"):
        _small(config)
    # A batch cannot have more people than there are.
    config.train.identities_per_batch = min(config.train.identities_per_batch, people)
    return config


def _there(dataset: str, data_dir: str) -> tuple[int, bool, int]:
    """Spectra, whether they are aligned, and training identities; of a data set that is not there what most have.

    That it is not there is said where the config is checked.
    """
    try:
        read = read_json(own_description(dataset, data_dir))
        return len(read["modalities"]), read["aligned"], read["counts"]["train"][1]
    except (OSError, ValueError, LookupError, TypeError):
        return 1, True, 8


def _one_stream() -> ConfigDict:
    """AGW of the same paper for one spectrum: Adam, 120 epochs."""
    config = agw.agw()
    config.data.update(image_size=(256, 128), padding=10, flip=0.5)
    config.model.shared_from = 0
    config.optim.update(
        name="adam", lr=3.5e-4, weight_decay=5e-4, base_lr_factor=1.0, warmup_epochs=10, milestones=(40, 70), epochs=120
    )
    config.train.update(identities_per_batch=16, images_per_identity=4, eval_every=10)
    return config


def _two_stream() -> ConfigDict:
    """As configs/agw_sysu.py."""
    config = agw.agw()
    config.data.update(image_size=(288, 144), padding=10, flip=0.5)
    config.train.update(identities_per_batch=8, images_per_identity=4, eval_every=10)
    return config


def _together(spectra: int, backbone: str) -> ConfigDict:
    """HTT; of one spectrum what its losses between spectra leave: cross-entropy and triplet."""
    config = htt.htt()
    config.data.update(image_size=(256, 128), padding=10, flip=0.5)
    config.model.backbone = "vit_base" if backbone == "vit" else "resnet50"
    if backbone != "vit":
        config.data.update(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    if spectra == 1:
        config.loss.update(mmm_weight=0.0, cim_weight=0.0)
    config.eval.missing_modalities = spectra > 1
    return config


def _small(config: ConfigDict) -> None:
    """Makes a config small, as the demos are: for two CPU cores and few people."""
    vit = config.model.backbone == "vit_base"
    config.data.update(image_size=(96, 48), padding=4)
    config.model.backbone = "vit_mini" if vit else "resnet_mini"
    config.init.backbone = "" if vit else "drawn/resnet_mini"
    if config.model.get("non_local"):
        config.model.non_local = ((2, 0), (3, 0))
    config.optim.update(
        name="adamw", lr=1e-3, weight_decay=0.05, bias_lr_factor=1.0, base_lr_factor=1.0, schedule="cosine"
    )
    config.optim.update(warmup_epochs=2, epochs=24)
    config.train.update(identities_per_batch=8, images_per_identity=4, eval_every=4, evaluate_first=True)
