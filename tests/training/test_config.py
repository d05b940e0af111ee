import json
import os
import pathlib
import subprocess
import sys

import ml_collections
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from mmreid_jax.errors import UserError
from mmreid_jax.training import config as configs

# How ml_collections loads a config file.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")

ROOT = pathlib.Path(__file__).parents[2]
GOOD = """
from ml_collections import ConfigDict, config_dict

def get_config(variant="small"):
    return ConfigDict(dict(
        variant=variant,
        seed=1,
        optim=dict(lr=0.1, name="sgd", milestones=(1, 2), weights=(0.5, 1.0), nesterov=False,
                   clip_norm=config_dict.placeholder(float)),
        mtt=dict(optim=dict(lr=0.2)),
    ))
"""


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

    def test_pretty_has_one_aligned_line_per_value(self):
        lines = configs.pretty(_config()).splitlines()
        assert lines[1] == "optim.lr          0.1"
        assert [line.index(line.split()[1]) for line in lines] == [18] * 4
        assert configs.pretty({}) == ""

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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with configs, good and bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    (tmp_path / "configs").mkdir()
    for name in ("demo", "htt_rgbnt201", "common", "__init__"):
        (tmp_path / "configs" / f"{name}.py").write_text(GOOD)
    (tmp_path / "missing_import.py").write_text("\n\nimport a_module_that_does_not_exist\n")
    (tmp_path / "bad_value.py").write_text("def get_config():\n    return int('x')\n")
    (tmp_path / "bad_key.py").write_text("def get_config():\n    return {}['x']\n")
    (tmp_path / "bad_syntax.py").write_text("x = 1\ndef get_config(:\n")
    (tmp_path / "no_function.py").write_text("x = 1\n")
    return tmp_path


def _parse(*arguments):
    argv = ["main.py", *arguments]
    values = flags.FlagValues()
    flag = config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)
    flags.DEFINE_integer("number", 3, "A number.", flag_values=values)
    assert configs.friendly_flags(argv, values) == ["main.py"]
    return flag.value


DEMO = "--config=configs/demo.py"


def test_a_right_command_line(folder):
    config = _parse(DEMO + ":large", "--config.optim.lr=3", "--config.optim.milestones=(3,4,5)", "--config.seed", "5")
    assert (config.optim.lr, config.optim.milestones, config.seed, config.variant) == (3.0, (3, 4, 5), 5, "large")
    assert _parse("--config", "configs/demo.py", "--config.optim.clip_norm=2").optim.clip_norm == 2.0
    assert _parse(DEMO, "--config.optim.weights=(1,2)", "--config.optim.nesterov").optim.nesterov is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DEMO, "--config.optim.lrr=1"], "unknown key --config.optim.lrr; did you mean --config.optim.lr?"),
        ([DEMO, "--config.optm.lr=1"], "unknown key --config.optm.lr; did you mean --config.optim.lr?"),
        ([DEMO, "--config.mtt.lr", "1"], "unknown key --config.mtt.lr; did you mean --config.mtt.optim.lr?"),
        ([DEMO, "--config.optim.lr.x=1"], "unknown key --config.optim.lr.x; did you mean --config.optim.lr?"),
        (
            [DEMO, "--noconfig.optim.nestrov"],
            "unknown key --config.optim.nestrov; did you mean --config.optim.nesterov?",
        ),
        ([DEMO, "--config.zzz=1"], "unknown key --config.zzz; there are mtt, optim, seed, variant"),
        (
            [DEMO, "--config.optim.lr=abc"],
            "--config.optim.lr=abc: expected a value of type float, as in --config.optim.lr=0.1",
        ),
        ([DEMO, "--config.seed=1.5"], "--config.seed=1.5: expected a value of type int, as in --config.seed=1"),
        ([DEMO, "--config.optim.clip_norm=x"], "--config.optim.clip_norm=x: expected a value of type float"),
        (
            [DEMO, "--config.optim.milestones=(1,0.5)"],
            "--config.optim.milestones=(1, 0.5): expected a tuple of int, as in --config.optim.milestones='(1, 2)'",
        ),
        (
            [DEMO, "--config.optim.milestones=1;2"],
            "--config.optim.milestones=('1;2',): expected a tuple of int, as in --config.optim.milestones='(1, 2)'",
        ),
        (
            [DEMO, "--config.optim=3"],
            "--config.optim is a section; set its keys one by one, --config.optim.KEY=VALUE",
        ),
        ([DEMO, "--config.seed"], "Missing value for flag --config.seed"),
        ([DEMO, "lr=1"], "unexpected argument 'lr=1'; settings are written --config.KEY=VALUE"),
        ([DEMO, "--number=x"], "--number=x: expected a value of type int, as in --number=3"),
        (["--confg=configs/demo.py"], "Unknown command line flag 'confg'. Did you mean: config?"),
        ([], "--config=FILE is missing; available: configs/demo.py, configs/htt_rgbnt201.py"),
        (["--config.seed=1"], "--config=FILE is missing; available: configs/demo.py, configs/htt_rgbnt201.py"),
        (
            ["--config=configs/htt_rgbnt210.py", "--config.seed=1"],
            "--config=configs/htt_rgbnt210.py: there is no such file; did you mean configs/htt_rgbnt201.py? "
            "available: configs/demo.py, configs/htt_rgbnt201.py",
        ),
        (
            ["--config=missing_import.py"],
            "--config=missing_import.py fails in line 3: ModuleNotFoundError: "
            "No module named 'a_module_that_does_not_exist'",
        ),
        (
            ["--config=bad_value.py"],
            "--config=bad_value.py fails in line 2: ValueError: invalid literal for int() with base 10: 'x'",
        ),
        (["--config=bad_key.py"], "--config=bad_key.py fails in line 2: KeyError: 'x'"),
        (["--config=bad_syntax.py"], "--config=bad_syntax.py: syntax error in line 2: invalid syntax"),
        (
            ["--config=no_function.py"],
            "--config=no_function.py fails: AttributeError: module 'config_config' has no attribute 'get_config'",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_two(folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        _parse(*arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


PROGRAM = """
from absl import app, flags, logging
from ml_collections import config_flags
from mmreid_jax.training.config import friendly_flags

CONFIG = config_flags.DEFINE_config_file("config")

def main(argv):
    logging.info("chatter")
    print("seed", CONFIG.value.seed)
    raise AttributeError("a bug of the program")

app.run(main, flags_parser=friendly_flags)
"""


def _program(folder, *arguments):
    (folder / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "program.py", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_program_with_a_mistake_on_its_command_line(folder):
    done = _program(folder, DEMO, "--config.sed=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown key --config.sed; did you mean --config.seed?\n"


def test_bugs_of_the_program_keep_their_traceback(folder):
    done = _program(folder, DEMO, "--config.seed=4")
    assert (done.returncode, done.stdout) == (1, "seed 4\n")
    assert "Traceback" in done.stderr
    assert "a bug of the program" in done.stderr
    assert "chatter" not in done.stderr


def test_help_still_works(folder):
    done = _program(folder, "--helpshort")
    assert "config" in done.stdout
    assert "error" not in done.stderr
