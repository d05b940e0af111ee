"""Small pre-trained trunks: what ImageNet's and CLIP's weights are to the published systems, for drawn data.

The files lie in ``weights`` beside this package and are named ``drawn/NAME`` where a config asks for weights
(``config.init.backbone``, of a text tower ``config.init.clip``). ``python -m mmreid_jax pretrain_trunk`` makes them: it
draws people that no experiment sees (`people`), and trains a backbone to tell them apart and to name what they wear
(`network`, `pretraining`), or a text tower to say what a backbone sees of them (`reading`).
"""
