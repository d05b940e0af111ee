"""Captions of images from a vision-language model on the user's disk, their rephrasing, and the removal of colours.

An optional part: `captioner` and `rephrasing` need PyTorch and `transformers` (``pip install -e ".[caption]"``), and
import them when they are called. Nothing is ever downloaded: models are folders. Commands:
``python -m mmreid_jax captioning caption|pairs|finetune|rephrase|strip_colours``; see docs/captioning.md.
"""
