"""Which golden file of DEEN holds what, by its content."""

from __future__ import annotations

from mmreid_jax.testing import goldens


def kind_of(golden: goldens.Case) -> str:
    """``network``, ``aggregation``, ``expansion``, ``losses``, ``optimizer``, ``score``, ``sampler``, ``augment``,
    ``init``, or ``other``."""
    facts = golden.json
    marks = {
        "network": "state_dict",
        "aggregation": "levels",
        "expansion": "channels",
        "losses": "lambda_1",
        "optimizer": "groups",
        "score": "g_cam_sysu",
        "sampler": "ids_per_batch",
        "augment": "aspect_range",
        "init": "facts",
    }
    return next((kind for kind, key in marks.items() if key in facts), "other")


def of_kind(kind: str) -> list[goldens.Case]:
    """The cases of the suite ``deen`` that hold `kind`."""
    return [golden for golden in map(goldens.load, goldens.cases("deen")) if kind_of(golden) == kind]


def steps_of(golden: goldens.Case) -> bool:
    """Whether a case with a network trains it."""
    return "labels_per_modality" in golden.json
