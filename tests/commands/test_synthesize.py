"""The command that draws a data set."""

import io
import json
import sys

import pytest

from mmreid_jax import owned
from mmreid_jax.commands import synthesize
from mmreid_jax.errors import UserError, run_command


class TestCommand:
    ARGUMENTS = ("--identities", "2", "--images_per_identity", "2", "--cameras", "2", "--image_size", "32", "16")

    def test_draws_shows_and_counts(self, tmp_path, capsys):
        sheet = tmp_path / "sheet.png"
        arguments = ["--dataset", "rgbnt201", "--out", str(tmp_path / "data"), *self.ARGUMENTS]
        synthesize.main([*arguments, "--contact_sheet", str(sheet)])
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["train", "4", "2", "2"]
        assert lines[3].split() == ["gallery", "4", "2", "2"]
        assert "(drawn)" in lines[4]
        assert owned.is_picture(sheet)
        synthesize.main([*arguments, "--contact_sheet", str(sheet)])
        capsys.readouterr()
        for content in (b"words", b"\x89PNG\r\n\x1a\n and more"):
            sheet.write_bytes(content)
            with pytest.raises(UserError, match=r"sheet\.png is not overwritten: it is no contact sheet"):
                synthesize.main([*arguments, "--contact_sheet", str(sheet)])
            assert sheet.read_bytes() == content
        marker = json.loads((tmp_path / "data" / "RGBNT201" / "drawn.json").read_text())
        assert marker["identities"] == 2
        synthesize.main(arguments)
        assert "was there already" in capsys.readouterr().out

    def test_mistakes_are_one_line(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as stop:
            run_command(synthesize.main, ["--dataset", "regbd", "--out", str(tmp_path)])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("error: there is no data set 'regbd'; did you mean regdb?")
        assert error.count("\n") == 1

    def test_a_bar_is_shown_only_to_somebody(self, tmp_path, monkeypatch):
        screen = io.StringIO()
        monkeypatch.setattr(sys, "stderr", screen)
        sizes = ["--identities", "2", "--images_per_identity", "2", "--cameras", "2", "--image_size", "32", "16"]
        numbers = ["--dataset", "rgbnt201", *sizes]
        synthesize.main([*numbers, "--out", str(tmp_path / "nobody")])
        assert screen.getvalue() == ""
        screen.isatty = lambda: True
        synthesize.main([*numbers, "--out", str(tmp_path / "somebody")])
        assert "drawing rgbnt201" in screen.getvalue()
