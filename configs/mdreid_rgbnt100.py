"""MDReID on RGBNT100: CLIP's ViT-B/16 with a token of what modalities share and one of what each has alone, 128x256.

    python main.py --config configs/mdreid_rgbnt100.py --config.init.backbone=ViT-B-16.pt

The weights are OpenAI's archive as downloaded, a state_dict of it, or Hugging Face's ``model.safetensors`` of
clip-vit-base-patch16. Without the data: add --config.data.drawn=True to run on drawn vehicles in the same layout.
Published (authors' README), mAP / rank-1: 85.3 / 95.6.
Deviations: float32 instead of float16 with scaled gradients (--config.model.dtype=bfloat16 halves the memory); the best
checkpoint is the first of the best, theirs the last; random numbers.
"""

from ml_collections import ConfigDict

from configs.systems import mdreid


def get_config() -> ConfigDict:
    config = mdreid.mdreid()
    config.seed = 1111
    config.data.update(dataset="rgbnt100", image_size=(128, 256), padding=10, flip=0.5, erasing=0.5)
    config.model.update(backbone="clip_vit_b16_projected", side_weight=1.0)
    config.loss.update(
        ce_weight=0.25,
        label_smoothing=0.1,
        triplet_weight=1.0,
        shared_weight=3.0,
        orthogonality_weight=1.5,
        disentangling_weight=5.25,
    )
    config.optim.update(
        name="adam",
        lr=1.5e-4,
        base_lr_factor=1 / 30,
        bias_lr_factor=2.0,
        weight_decay=1e-4,
        schedule="shared_ends",
        warmup_epochs=10,
        warmup_start=0.1,
        minimum=0.001,
        noise=0.67,
        epochs=50,
    )
    config.train.update(identities_per_batch=8, images_per_identity=8)
    config.eval.update(feature="all")
    return config
