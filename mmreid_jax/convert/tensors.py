"""What the pickle of a checkpoint may build: tensors as views of the file, numpy arrays, containers and scalars.

Reference: ``torch/_utils.py``, ``torch/_tensor.py`` and ``torch/storage.py`` of PyTorch; ``numpy.core.multiarray``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mmreid_jax.convert import pickles
from mmreid_jax.convert.budget import Budget
from mmreid_jax.convert.pickles import Broken, Damaged, Name, Placeholder, Refused, Shell, Unsupported
from mmreid_jax.errors import printable

# A view may be larger than its file (stride 0), but not by more than this: such files exist only to exhaust memory.
_VIEW_ALLOWANCE = 16 << 20
MOST_AXES = 32
_MOST_DEVICE_PARTS = 2

# Names of PyTorch's element types: storage class, dtype, numpy's; bfloat16 is read as the upper half of float32.
BFLOAT16 = "bfloat16"
_BYTES = "<u1"
ELEMENTS = (
    ("HalfStorage", "float16", "<f2"),
    ("BFloat16Storage", "bfloat16", BFLOAT16),
    ("FloatStorage", "float32", "<f4"),
    ("DoubleStorage", "float64", "<f8"),
    ("CharStorage", "int8", "<i1"),
    ("ByteStorage", "uint8", _BYTES),
    ("ShortStorage", "int16", "<i2"),
    ("IntStorage", "int32", "<i4"),
    ("LongStorage", "int64", "<i8"),
    ("BoolStorage", "bool", "|b1"),
    ("ComplexFloatStorage", "complex64", "<c8"),
    ("ComplexDoubleStorage", "complex128", "<c16"),
    (None, "uint16", "<u2"),
    (None, "uint32", "<u4"),
    (None, "uint64", "<u8"),
)
_STORAGE_ELEMENTS = {
    **{f"torch.{storage}": element for storage, _, element in ELEMENTS if storage},
    # Its count is one of bytes; the tensor brings the type.
    "torch.storage.UntypedStorage": _BYTES,
    "torch.UntypedStorage": _BYTES,
}
# Blocks of quantised tensors, which are not read; what their elements take tells where the next block begins.
_QUANTISED = {
    "torch.QInt8Storage": _BYTES,
    "torch.QUInt8Storage": _BYTES,
    "torch.QUInt4x2Storage": _BYTES,
    "torch.QUInt2x4Storage": _BYTES,
    "torch.QInt32Storage": "<i4",
}
_DTYPE_ELEMENTS = {f"torch.{dtype}": element for _, dtype, element in ELEMENTS}


def is_count(value: Any) -> bool:
    """Whether a value is a whole number that a size or an offset can be."""
    return type(value) is int and 0 <= value < 1 << 63


def itemsize(element: str) -> int:
    """Bytes of an element in the file."""
    return 2 if element == BFLOAT16 else np.dtype(element).itemsize


def elements(data: Any, element: str, swapped: bool = False) -> np.ndarray:
    """Bytes as a flat array; bfloat16 becomes float32."""
    if element != BFLOAT16:
        array = np.frombuffer(data, element)
        return array.byteswap() if swapped else array
    upper = np.frombuffer(data, "<u2")
    return ((upper.byteswap() if swapped else upper).astype(np.uint32) << 16).view(np.float32)


_NOT_READ = Broken("not read yet")


@dataclasses.dataclass
class Storage:
    """A block of elements that tensors are views of; without `data`, `missing` is what its tensors are instead."""

    element: str
    numel: int
    data: np.ndarray | None
    missing: Broken | Unsupported = _NOT_READ


class Storages:
    """The blocks of a file by key, each made once; `fetch` gives the bytes, or the words why it cannot.

    Attributes:
      limit: bytes that a tensor may have.
      swapped: whether the file is big-endian.
      declared: key -> element and count, of every block that the pickle named.
    """

    def __init__(self, file_size: int, budget: Budget, fetch: Callable[[str], memoryview | str] | None = None) -> None:
        self.limit = file_size + _VIEW_ALLOWANCE
        self.budget = budget
        self.fetch = fetch
        self.swapped = False
        self.declared: dict[str, tuple[str, int]] = {}
        self._made: dict[tuple[str, str], Storage] = {}

    def __call__(self, reference: Any) -> Storage | Placeholder:
        """A persistent id ("storage", class, key, device, count of elements, view or nothing) -> its storage."""
        if not (isinstance(reference, tuple) and len(reference) in (5, 6) and reference[0] == "storage"):
            is_class = isinstance(reference, tuple) and len(reference) == 4 and reference[0] == "module"
            if is_class and isinstance(reference[1], Placeholder):
                # The legacy stream keeps a module's class with its source, of which nothing is needed.
                return reference[1]
            raise Refused("torch.nn.modules.Module" if is_class else "an object outside of the file")
        kind, key, numel = reference[1], reference[2], reference[4]
        if not isinstance(key, str) or not is_count(numel):
            raise ValueError("a reference to no storage")
        if isinstance(kind, Placeholder) and kind.name.endswith("Storage"):
            if kind.name in _QUANTISED:
                self.declared.setdefault(key, (_QUANTISED[kind.name], numel))
            return Storage(kind.name, numel, None, Unsupported(f"a tensor of {kind.name.removeprefix('torch.')}"))
        element = _STORAGE_ELEMENTS.get(kind.name) if isinstance(kind, Name) else None
        if element is None:
            raise ValueError("a reference to no storage")
        if key not in self.declared:
            self.declared[key] = (element, numel)
        whole = self._whole(key, element, numel)
        view = reference[5] if len(reference) == 6 else None
        if view is None or whole.data is None:
            return whole
        _, offset, count = view
        if not (is_count(offset) and is_count(count)) or offset + count > numel:
            return Storage(element, count, None, Broken("its storage is a view that reaches beyond its block"))
        return Storage(element, count, whole.data[offset : offset + count])

    def _whole(self, key: str, element: str, numel: int) -> Storage:
        if (key, element) not in self._made:
            self._made[key, element] = self._make(key, element, numel)
        storage = self._made[key, element]
        if storage.numel != numel:
            return Storage(element, numel, None, Broken(f"its storage {printable(key)!r} is given two sizes"))
        return storage

    def _make(self, key: str, element: str, numel: int) -> Storage:
        if self.fetch is None:
            return Storage(element, numel, None, _NOT_READ)
        size = numel * itemsize(element)
        content = self.fetch(key)
        if isinstance(content, str):
            return Storage(element, numel, None, Broken(content))
        if len(content) != size:
            return Storage(
                element,
                numel,
                None,
                Broken(f"its storage {printable(key)!r} has {len(content):,} bytes instead of {size:,}"),
            )
        return self.block(content, element)

    def block(self, raw: Any, element: str) -> Storage:
        """Bytes as a storage; those that must be copied to be read are paid for."""
        if element == BFLOAT16 or self.swapped:
            self.budget.pay(4 * (len(raw) // itemsize(element)) if element == BFLOAT16 else len(raw))
        return Storage(element, len(raw) // itemsize(element), elements(raw, element, self.swapped))


def _tensor(limit: int, storage: Any, offset: Any, size: Any, stride: Any) -> np.ndarray | Broken | Unsupported:
    """A view of a storage, with every index checked against its length."""
    if isinstance(storage, Placeholder):
        return Unsupported(f"a tensor in {printable(storage.name)}")
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= MOST_AXES):
        raise ValueError("a tensor without a shape")
    if not all(map(is_count, (offset, *size, *stride))):
        raise ValueError("a tensor whose shape is not made of counts")
    if storage.data is None:
        return storage.missing
    block, item = storage.data, storage.data.itemsize
    if math.prod(size) == 0:
        if math.prod(filter(None, size)) * item > limit:
            return Broken(f"its shape {list(size)} is larger than the file")
        return np.empty(size, block.dtype)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if last >= len(block):
        return Broken(f"its last element is number {last:,} of a storage of {len(block):,}")
    if math.prod(size) * item > limit:
        return Broken(f"its shape {list(size)} is larger than the file")
    return np.ndarray(size, block.dtype, block.data, offset * item, tuple(step * item for step in stride))


class _DType(Shell):
    """numpy's dtype: its name first, its byte order later."""

    def __init__(self, name: Any, *_: Any) -> None:
        if not isinstance(name, str):
            raise ValueError("a dtype without a name")
        self.dtype: np.dtype | Unsupported = Unsupported(f"numpy arrays of type {printable(name)!r}")
        if re.fullmatch(r"[<>=|]?([biufc][0-9]{1,2}|[SU][0-9]{1,6})", name):
            self.dtype = np.dtype(name)

    def fill(self, state: Any) -> np.dtype | Unsupported:
        if not isinstance(state, tuple) or state[1] not in ("<", ">", "=", "|"):
            raise ValueError("a dtype without byte order")
        if isinstance(self.dtype, Unsupported) or state[1] == "|":
            return self.dtype
        return self.dtype.newbyteorder(state[1])


class _Array(Shell):
    """numpy's array: created empty, filled with (version, shape, dtype, column order, bytes)."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def fill(self, state: Any) -> np.ndarray | Unsupported:
        _, shape, dtype, columns, raw = state
        return _numpy(self.budget, raw, dtype, shape, "F" if columns else "C")


def _numpy(budget: Budget, raw: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray | Unsupported:
    dtype = dtype.dtype if isinstance(dtype, _DType) else dtype
    if isinstance(dtype, Unsupported | Placeholder):
        return dtype if isinstance(dtype, Unsupported) else Unsupported("a numpy array of an unknown type")
    if isinstance(raw, str):
        budget.pay(len(raw))
        raw = raw.encode("latin-1")
    if not (isinstance(raw, bytes) and isinstance(dtype, np.dtype) and not dtype.hasobject and dtype.itemsize):
        return Unsupported("a numpy array of objects")
    if not (isinstance(shape, tuple) and len(shape) <= MOST_AXES and all(map(is_count, shape))):
        raise ValueError("a numpy array without a shape")
    if order not in ("C", "F"):
        raise ValueError("a numpy array without an order")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise Damaged(f"a numpy array of shape {list(shape)} has {len(raw):,} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _encode(budget: Budget, text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("an unknown way of writing bytes")
    budget.pay(len(text))
    return text.encode("latin-1")


def _first(value: Any, *_: Any) -> Any:
    return value


def _complex(*parts: Any) -> complex:
    if not all(type(part) in (int, float) for part in parts):
        raise ValueError("a complex number that is made of none")
    return complex(*parts)


def _device(*parts: Any) -> tuple[Any, ...]:
    if len(parts) > _MOST_DEVICE_PARTS:
        raise ValueError("a device that is none")
    return parts


def _shape(budget: Budget, numbers: Any = ()) -> tuple[Any, ...]:
    if not isinstance(numbers, tuple | list):
        raise ValueError("a shape that is none")
    budget.pay(8 * len(numbers), len(numbers))
    return tuple(numbers)


# Tensors of kinds that have no counterpart here; what rebuilds them in PyTorch -> what they are.
_KINDS = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without data (device meta)",
    "_rebuild_wrapper_subclass": "a tensor subclass",
}


def names(storages: Storages) -> dict[str, Name]:
    """All that a checkpoint's pickle may name and get built."""
    budget = storages.budget

    def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        return _tensor(storages.limit, storage, offset, size, stride)

    def typed_tensor(
        storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any, *_: Any
    ) -> Any:
        if isinstance(kind, Placeholder):
            return Unsupported(f"a tensor of type {printable(kind.name.removeprefix('torch.'))}")
        element = _DTYPE_ELEMENTS.get(kind.name) if isinstance(kind, Name) else None
        if element is None or not isinstance(storage, Storage) or storage.element != _BYTES:
            raise ValueError("a tensor without a type")
        if storage.data is None:
            return storage.missing
        if storage.numel % itemsize(element):
            return Broken(f"its storage has {storage.numel:,} bytes, no multiple of its element's")
        return _tensor(storages.limit, storages.block(storage.data, element), offset, size, stride)

    def attributed(rebuild: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
        rebuilds = isinstance(rebuild, Name) and rebuild.call and rebuild.name.startswith("torch._utils._rebuild_")
        if not rebuilds or not isinstance(arguments, tuple) or len(arguments) > MOST_AXES:
            return Unsupported("a tensor subclass")
        return rebuild.call(*arguments)

    def on_device(value: Any, *_: Any) -> Any:
        return value if isinstance(value, np.ndarray) else Unsupported("a tensor of another device")

    def unsupported(what: str) -> Callable[..., Any]:
        return lambda *_: Unsupported(what)

    def scalar(dtype: Any, raw: Any) -> Any:
        budget.pay(2 * len(raw) if isinstance(raw, str | bytes) else 0)
        value = _numpy(budget, raw, dtype, ())
        return value if isinstance(value, Unsupported) else value[()]

    def array(*arguments: Any) -> Any:
        return _numpy(budget, *arguments)

    def mapping(pairs: Any = ()) -> dict[Any, Any]:
        return pickles.dictionary(pairs, budget)

    calls: dict[str, Callable[..., Any] | None] = {
        **{f"torch._utils.{rebuild}": unsupported(what) for rebuild, what in _KINDS.items()},
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": typed_tensor,
        "torch._utils._rebuild_parameter": _first,
        "torch._utils._rebuild_parameter_with_state": _first,
        "torch._utils._rebuild_device_tensor_from_numpy": on_device,
        "torch._utils._rebuild_device_tensor_from_cpu_tensor": on_device,
        "torch._utils._rebuild_xla_tensor": on_device,
        "torch._tensor._rebuild_from_type_v2": attributed,
        "torch.Size": lambda numbers=(): _shape(budget, numbers),
        "torch.device": _device,
        "collections.OrderedDict": mapping,
        "collections.Counter": mapping,
        "collections.defaultdict": lambda _factory=None, pairs=(): mapping(pairs),
        "_codecs.encode": lambda text, encoding="latin1": _encode(budget, text, encoding),
        "numpy.dtype": _DType,
        "numpy.ndarray": None,
        "torch.Tensor": None,
        "torch._tensor.Tensor": None,
        "torch.nn.parameter.Parameter": None,
        **{name: None for name in (*_STORAGE_ELEMENTS, *_DTYPE_ELEMENTS)},
    }
    for module in ("numpy.core", "numpy._core"):
        calls[f"{module}.multiarray._reconstruct"] = lambda *_: _Array(budget)
        calls[f"{module}.multiarray.scalar"] = scalar
        calls[f"{module}.numeric._frombuffer"] = array
    for module in ("__builtin__", "builtins"):
        calls[f"{module}.set"] = pickles.members(set, budget)
        calls[f"{module}.frozenset"] = pickles.members(frozenset, budget)
        calls[f"{module}.complex"] = _complex
        # As the factory of a defaultdict.
        calls[f"{module}.dict"] = calls[f"{module}.list"] = None
    return {name: Name(name, call) for name, call in calls.items()}


def unchecked(known: dict[str, Name]) -> dict[str, Name]:
    """The same names, with tensors that need no data: for a first pass that looks for storages."""

    def nothing(*_: Any) -> None:
        return None

    return {
        key: Name(name.name, nothing) if key.startswith("torch._utils._rebuild_") else name
        for key, name in known.items()
    }
