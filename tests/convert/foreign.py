"""Files as other programs write them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from mmreid_jax.commands import convert as command
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from tests.commands.test_convert import vit_entries
from tests.convert.opcodes import (
    BUILD,
    EMPTY_TUPLE,
    NEWOBJ,
    NONE,
    dict_of,
    name,
    number,
    storage,
    tensor,
    zip_file,
)


def same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def refused(words, function, *arguments, **options):
    with pytest.raises(UserError, match=words) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)


NAMESPACE = name("argparse", "Namespace") + EMPTY_TUPLE + NEWOBJ + dict_of(lr=number(1), path=NONE) + BUILD


LINEAR = layouts.Layout("one", layouts.linear("fc", "fc"), (layouts.Drop("old.*", "an old head"),))


def pytorch(path, entries, key="bare"):
    command.write_pytorch(str(path), entries, key, ("epoch",))
    return path


def under(prefix, entries=None):
    return {prefix + key: value for key, value in (vit_entries() if entries is None else entries).items()}


def several(path, **states):
    """A zip checkpoint of several state_dicts of one small layout each."""
    blocks, made = {}, {}
    for key, entries in states.items():
        inner = {}
        for entry, value in entries.items():
            number_ = str(len(blocks))
            blocks[number_] = np.ascontiguousarray(value, "<f4").tobytes()
            strides = [int(np.prod(value.shape[axis + 1 :])) for axis in range(value.ndim)]
            inner[entry] = tensor(storage(number_, value.size), 0, value.shape, strides)
        made[key] = dict_of(**inner)
    return zip_file(path, dict_of(**made, args=NAMESPACE), blocks)


FC = {"fc.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.bias": np.ones(2, np.float32)}
