import json
import pathlib

import ml_collections
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import config as configs


def _config(**changes):
    values = {"seed": 1, "optim": {"lr": 0.1, "milestones": (1, 2)}, "name": "htt"}
    return ml_collections.ConfigDict({**values, **changes})


class TestDescribing:
    def test_flatten(self):
        expected = {"name": "htt", "optim.lr": 0.1, "optim.milestones": (1, 2), "seed": 1}
        assert configs.flatten(_config()) == configs.flatten(_config().to_dict()) == expected

    def test_json_is_sorted_and_complete(self):
        text = configs.to_json(_config(width=np.int64(3), where=pathlib.Path("a/b"), mean=np.array([0.5, 1.0])))
        assert json.loads(text) == {
            "mean": [0.5, 1.0], "name": "htt", "optim": {"lr": 0.1, "milestones": [1, 2]},
            "seed": 1, "where": "a/b", "width": 3,
        }  # fmt: skip
        assert list(json.loads(text)) == sorted(json.loads(text))

    def test_json_follows_references_and_refuses_what_it_cannot_write(self):
        referring = _config()
        referring.epochs = ml_collections.FieldReference(7)
        referring.again = referring.get_ref("epochs")
        assert json.loads(configs.to_json(referring))["again"] == 7
        with pytest.raises(TypeError, match="type object"):
            configs.to_json(_config(broken=object()))

    def test_fingerprint_depends_on_values_alone(self):
        turned = ml_collections.ConfigDict({"name": "htt", "optim": {"milestones": (1, 2), "lr": 0.1}, "seed": 1})
        assert configs.fingerprint(turned) == configs.fingerprint(_config())
        assert configs.fingerprint(_config(seed=2)) != configs.fingerprint(_config())
        assert len(configs.fingerprint({})) == 12

    def test_differences_between_a_config_and_its_json(self):
        old = json.loads(configs.to_json(_config()))
        assert configs.differences(old, _config()) == []
        new = _config(seed=3, extra="x", optim={"lr": 0.1, "milestones": (1, 3)})
        assert configs.differences(old, new) == [
            "optim.milestones: [1, 2] -> [1, 3]",
            "seed: 1 -> 3",
            "extra: absent -> 'x'",
        ]
        assert configs.differences(new, old)[-1] == "seed: 3 -> 1"


class TestKeys:
    KNOWN = ("optim.lr", "mtt.optim.lr", "data.image_size", "seed")

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("optim.lrr", "optim.lr"),
            ("optm.lr", "optim.lr"),
            ("lr", "optim.lr"),
            ("learning_rate", "optim.lr"),
            ("mtt.optim.learning_rate", "mtt.optim.lr"),
            ("mtt.lr", "mtt.optim.lr"),
            ("data.imagesize", "data.image_size"),
            ("image_sise", "data.image_size"),
            ("sed", "seed"),
            ("unrelated", None),
        ],
    )
    def test_nearest(self, written, meant):
        assert configs.nearest(written, self.KNOWN) == meant

    def test_check_keys(self):
        configs.check_keys({"lr": 1}, ("lr", "name"), "optim")
        with pytest.raises(UserError, match=r"^unknown key config.optim.nam; did you mean config.optim.name\?$"):
            configs.check_keys({"lr": 1, "nam": 2}, ("lr", "name"), "optim")
        with pytest.raises(UserError, match=r"unknown key config.optim.zzz; there are lr, name$"):
            configs.check_keys({"zzz": 2}, ("lr", "name"), "optim")


class TestBatch:
    IDENTITY = np.repeat([4, 7, 9], [5, 2, 8])

    def _check(self, **changes):
        values = {"identities_per_batch": 3, "images_per_identity": 4, "name": "rgbnt201/train", **changes}
        return configs.check_batch(self.IDENTITY, **values)

    def test_what_fits_and_what_surprises(self):
        assert self._check(images_per_identity=2) == []
        assert self._check(devices=2, micro_batches=3) == [
            "1 of 3 identities of rgbnt201/train have fewer than 4 images: theirs are repeated"
        ]
        assert "one identity" in self._check(identities_per_batch=1, images_per_identity=2)[0]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"identities_per_batch": 4}, r"is 4, but rgbnt201/train has 3 identities; set .* to 3 or less"),
            ({"identities_per_batch": 0}, r"config.train.identities_per_batch is 0; it must be at least 1"),
            ({"images_per_identity": -1}, r"config.train.images_per_identity is -1"),
            ({"devices": 8}, r"3 x 4 = 12 images in 1 part\(s\) cannot be spread over 8 devices; .* multiple of 8"),
            ({"micro_batches": 5}, r"12 images cannot be cut into 5 equal parts"),
            ({"micro_batches": 4, "devices": 2}, r"12 images in 4 part\(s\) cannot be spread over 2 .* multiple of 8"),
        ],
    )
    def test_what_does_not(self, changes, message):
        with pytest.raises(UserError, match=message):
            self._check(**changes)
