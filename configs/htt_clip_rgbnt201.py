"""HTT on RGBNT201 with CLIP's ViT-B/16 in place of ImageNet's, as current work on multi-modal ReID starts: 256x128.

    python main.py --config configs/htt_clip_rgbnt201.py --config.init.backbone=ViT-B-16.pt

The weights are OpenAI's archive as downloaded, a state_dict of it, or Hugging Face's ``model.safetensors`` of
clip-vit-base-patch16. Without the data: add --config.data.drawn=True to run on drawn people in the same layout.
Not published: HTT's losses on another backbone. What is not HTT's follows the released code of MambaPro (2024): the
class token after the last norm and the projection to 512 channels, patches of 16x16 without overlap, position table
resized to the images, flips, images normalised as for HTT and not as for CLIP, Adam at 3.5e-4 and at 5e-6 for the
backbone, 60 epochs. --config.model.backbone=clip_vit_b16 takes the class token before the projection, 768 channels.
"""

from ml_collections import ConfigDict

from configs.systems import htt


def get_config() -> ConfigDict:
    config = htt.htt()
    config.data.update(dataset="rgbnt201", image_size=(256, 128), padding=10, erasing=0.5)
    config.model.update(head="linear")
    config.loss.update(
        ce_weight=1.0,
        cim_margin=0.5,
        cim_weight=0.5,
        label_smoothing=0.0,
        mmm_margin=1.0,
        mmm_weight=0.5,
        triplet_margin=-1.0,
        triplet_weight=1.0,
    )
    config.optim.update(weight_decay=1e-4, schedule="htt")
    config.train.update(images_per_identity=4)
    config.eval.update(feature="after")
    config.data.flip = 0.5
    config.model.backbone = "clip_vit_b16_projected"
    config.model.drop_path = 0.0
    config.train.identities_per_batch = 16
    config.optim.name = "adam"
    config.optim.lr = 3.5e-4
    config.optim.bias_lr_factor = 1.0
    config.optim.new_layers = ("^bottleneck/", "^classifier/")
    config.optim.base_lr_factor = 1 / 70  # of all others, the backbone: 5e-6
    config.optim.warmup_epochs = 10
    config.optim.epochs = 60
    return config
