"""What the tests of readers expect of a file that is refused."""

from __future__ import annotations

import pytest

from mmreid_jax.convert import torch_file
from mmreid_jax.errors import UserError


def refused(path, words):
    with pytest.raises(UserError, match=words) as error:
        torch_file.state_dict(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    assert len(str(error.value)) < 1000
