"""A program of JAX as an ONNX graph whose batch is of any size.

The program is traced at two sizes of the batch (`sizes`); the operations of both traces are read side by side and each
is written with the operators of ONNX. Everything that does not depend on an input is computed here and stored. A
broadcast costs nothing: operators of ONNX that work element by element broadcast by themselves, so an array is only
stretched where another operator wants it whole. A scan is written out, step by step, as most programs that read ONNX
optimise straight lines alone.

Opset 17 is the newest one that needs no newer reader than the programs of the day; https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend
import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.export import sizes
from mmreid_jax.export.sizes import Growing, Shape, Size

OPSET = 17
# Readers of that opset know this version of the file format.
IR_VERSION = 8
BATCH = "batch"
"""Name of the first axis of inputs and output."""
_ALL = np.iinfo(np.int64).max
# Of arrays in which a whole file may refer to equal ones by one name.
_SHORT = 64


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the graph, or one that is known.

    Attributes:
      shape: of the array as the program sees it.
      dtype: of its elements.
      held: shape of what is there; 1 where `shape` has more means that it is to be repeated.
      name: in the graph; "" for a known one.
      array: what is known.
    """

    shape: Shape
    dtype: np.dtype
    held: Shape
    name: str = ""
    array: np.ndarray | None = None


def convert(
    function: Callable[..., Any], inputs: dict[str, tuple[tuple[int, ...], Any]], output: str, metadata: dict[str, str]
) -> Any:
    """The ONNX model of a function of batches.

    Args:
      function: arrays [B, ...], one for each input -> an array [B, ...].
      inputs: name -> (shape without the batch, dtype).
      output: name of the result.
      metadata: of the file.

    Returns:
      An ``onnx.ModelProto``, checked.

    Raises:
      UserError: the function does something that has no form in ONNX here, or mixes the samples of a batch.
    """
    import onnx

    from mmreid_jax import __version__

    traces = [
        jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct((count, *shape), dtype) for shape, dtype in inputs.values()))
        for count in sizes.TRACED
    ]
    graph = Graph(tuple(inputs))
    given = [graph.input(name, (Growing(1, 0), *shape), np.dtype(dtype)) for name, (shape, dtype) in inputs.items()]
    try:
        (result,) = graph.run(traces[0], traces[1], given)
    except sizes.Differs as error:
        raise UserError(f"this model cannot be written as ONNX with a batch of any size: {error}") from None
    graph.node("Identity", [graph.named(graph.whole(result))], result, name=output)
    made = onnx.helper.make_graph(
        graph.needed(output), "mmreid_jax", graph.inputs, [_described(output, result)], graph.initializers(output)
    )
    model = onnx.helper.make_model(
        made,
        producer_name="mmreid_jax",
        producer_version=__version__,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.helper.set_model_props(model, metadata)
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise UserError("the model has more than the 2 GiB that an ONNX file holds; --format safetensors has no limit")
    onnx.checker.check_model(model, full_check=True)
    return model


def _described(name: str, value: Value) -> Any:
    """Name, type and shape of an input or output."""
    import onnx

    dims = [BATCH if dim == Growing(1, 0) else dim if isinstance(dim, int) else None for dim in value.shape]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), dims)


class Graph:
    """An ONNX graph in the making.

    Attributes:
      inputs: described.
    """

    def __init__(self, inputs: Sequence[str]) -> None:
        """An empty graph.

        Args:
          inputs: names that no array of the graph may have.
        """
        self.inputs: list[Any] = []
        self._taken = set(inputs)
        self._nodes: list[Any] = []
        self._stored: dict[str, np.ndarray] = {}
        self._names: dict[Any, str] = {}
        self._batch = ""

    def input(self, name: str, shape: Shape, dtype: np.dtype) -> Value:
        """A new input."""
        value = Value(shape, dtype, shape, name)
        self.inputs.append(_described(name, value))
        return value

    def needed(self, output: str) -> list[Any]:
        """The nodes that an output depends on, in order."""
        wanted, kept = {output}, []
        for node in reversed(self._nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        return kept[::-1]

    def initializers(self, output: str) -> list[Any]:
        """The known arrays that an output depends on."""
        import onnx

        used = {name for node in self.needed(output) for name in node.input}
        return [onnx.numpy_helper.from_array(array, name) for name, array in self._stored.items() if name in used]

    def node(self, kind: str, inputs: Sequence[str], like: Value, name: str = "", **attributes: Any) -> Value:
        """Adds an operator with one result.

        Args:
          kind: of the operator.
          inputs: names of its inputs.
          like: shape and type of the result; what it holds is whole unless `like` says otherwise.
          name: of the result; empty: a new one.
          **attributes: of the operator.
        """
        import onnx

        name = name or self._new(kind)
        self._nodes.append(onnx.helper.make_node(kind, list(inputs), [name], name=f"{name}_node", **attributes))
        return dataclasses.replace(like, name=name, array=None)

    def _new(self, kind: str) -> str:
        name = f"{kind}_{len(self._nodes)}"
        assert name not in self._taken
        return name

    def named(self, value: Value) -> str:
        """The name of an array; a known one is stored."""
        return value.name or self.store(value.array)

    def store(self, array: Any) -> str:
        """The name of a known array."""
        array = np.ascontiguousarray(array)
        short = array.nbytes <= _SHORT
        key = (array.dtype.str, array.shape, array.tobytes()) if short else id(array)
        if key not in self._names:
            self._names[key] = f"known_{len(self._stored)}"
            self._stored[self._names[key]] = array
        return self._names[key]

    def integers(self, *numbers: int) -> str:
        """The name of int64 [n]."""
        return self.store(np.array(numbers, np.int64))

    # --------------------------------------------------------------------------------------------------------- sizes

    def batch(self) -> str:
        """The name of int64 [1], the size of the batch."""
        if not self._batch:
            self._batch = self._plain("Shape", [self.inputs[0].name], end=1)
        return self._batch

    def size(self, size: Size) -> str:
        """The name of int64 [1], a size."""
        if isinstance(size, int):
            return self.integers(size)
        name = self.batch()
        if size.per_sample != 1:
            name = self._plain("Mul", [name, self.integers(size.per_sample)])
        return self._plain("Add", [name, self.integers(size.fixed)]) if size.fixed else name

    def scalar(self, number: Any, dtype: Any) -> Value:
        """A number of the program, which may grow with the batch."""
        if not isinstance(number, Growing):
            return known(np.asarray(number, dtype))
        made = self.node("Squeeze", [self.size(number)], Value((), np.dtype(np.int64), ()))
        return self.cast(made, dtype)

    def sizes(self, shape: Shape) -> str:
        """The name of int64 [n], sizes."""
        return self._plain("Concat", [self.size(size) for size in shape], axis=0)

    def _plain(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        like = Value((1,), np.dtype(np.int64), (1,))
        return self.node(kind, inputs, like, **attributes).name

    # ------------------------------------------------------------------------------------------------------- layouts

    def whole(self, value: Value) -> Value:
        """The array in its full size."""
        if value.held == value.shape:
            return value
        if value.array is not None and not any(isinstance(size, Growing) for size in value.shape):
            return known(np.broadcast_to(value.array, sizes.fixed(value.shape)))
        full = dataclasses.replace(value, held=value.shape)
        return self.node("Expand", [self.named(value), self.sizes(value.shape)], full)

    def reshape(self, value: Value, shape: Shape) -> Value:
        """Another shape of the same elements, which must be whole."""
        if shape == value.held:
            return dataclasses.replace(value, shape=shape)
        if value.array is not None:
            return known(value.array.reshape(sizes.fixed(shape)))
        # One size follows from the others.
        places = [-1 if isinstance(size, Growing) else size for size in shape]
        target = self.integers(*places) if places.count(-1) <= 1 else self.sizes(shape)
        return self.node("Reshape", [value.name, target], Value(shape, value.dtype, shape))

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Axes in another order."""
        if list(order) == list(range(len(order))):
            return value
        shape, held = (tuple(axes[i] for i in order) for axes in (value.shape, value.held))
        if value.array is not None:
            return Value(shape, value.dtype, held, array=value.array.transpose(order))
        return self.node("Transpose", [value.name], Value(shape, value.dtype, held), perm=list(order))

    def cast(self, value: Value, dtype: Any) -> Value:
        """Elements of another type."""
        import onnx

        dtype = np.dtype(dtype)
        if dtype == value.dtype:
            return value
        like = dataclasses.replace(value, dtype=dtype)
        if value.array is not None:
            return dataclasses.replace(like, array=value.array.astype(dtype))
        return self.node("Cast", [value.name], like, to=onnx.helper.np_dtype_to_tensor_dtype(dtype))

    def slice(self, value: Value, axis: int, start: Size, stop: Size, step: int, shape: Shape) -> Value:
        """A part of one axis of a whole array; `shape`: of the result."""
        whole = stop == value.shape[axis] and step > 0
        ends = self.integers(_ALL) if whole else self.size(stop)
        inputs = [self.named(value), self.size(start), ends, self.integers(axis), self.integers(step)]
        return self.node("Slice", inputs, Value(shape, value.dtype, shape))

    # ------------------------------------------------------------------------------------------------------ programs

    def run(self, first: Any, second: Any, arguments: Sequence[Value]) -> list[Value]:
        """What a traced program makes of its arguments; both traces are closed jaxprs.

        Raises:
          Differs: the traces differ in more than sizes.
          UserError: there is an operation that this file does not know.
        """
        if len(first.jaxpr.eqns) != len(second.jaxpr.eqns):
            raise sizes.Differs("it takes other steps for more samples")
        values: dict[Any, Value] = {}
        for variable, one, other in zip(first.jaxpr.constvars, first.consts, second.consts, strict=True):
            one, other = np.asarray(one), np.asarray(other)
            if one.shape != other.shape or not np.array_equal(one, other):
                raise sizes.Differs("a table of it is another one for more samples")
            values[variable] = known(one)
        values |= dict(zip(first.jaxpr.invars, arguments, strict=True))

        def read(atom: Any, other: Any) -> Value:
            if not isinstance(atom, jax.extend.core.Literal):
                return values[atom]
            number = sizes.merged(np.asarray(atom.val).item(), np.asarray(other.val).item())
            described: Any = atom.aval
            return self.scalar(number, described.dtype)

        for one, other in zip(first.jaxpr.eqns, second.jaxpr.eqns, strict=True):
            if one.primitive.name != other.primitive.name:
                raise sizes.Differs(f"it does {one.primitive.name} or {other.primitive.name}")
            inputs = [read(*pair) for pair in zip(one.invars, other.invars, strict=True)]
            results = self._apply(Step(one, other, inputs))
            values |= dict(zip(one.outvars, results, strict=True))
        return [read(*pair) for pair in zip(first.jaxpr.outvars, second.jaxpr.outvars, strict=True)]

    def _apply(self, step: Step) -> list[Value]:
        """The results of one operation."""
        kind = step.kind
        if kind in _INSIDE:
            inner = [each.params[_INSIDE[kind]] for each in (step.first, step.second)]
            closed = [each if hasattr(each, "consts") else jax.extend.core.ClosedJaxpr(each, ()) for each in inner]
            return self.run(closed[0], closed[1], step.inputs)
        if kind == "scan":
            return _scan(self, step)
        if kind in _ELEMENTWISE:
            return [_elementwise(self, step, _ELEMENTWISE[kind])]
        grows = any(isinstance(size, Growing) for result in step.results for size in result.shape)
        if kind not in _FREE and not grows and all(each.array is not None for each in step.inputs):
            return _computed(step)
        if kind not in _OPERATIONS:
            raise UserError(f"this model cannot be written as ONNX: its operation {kind!r} has no form there")
        results = _OPERATIONS[kind](self, step)
        return results if isinstance(results, list) else [results]


def known(array: Any) -> Value:
    """A known array."""
    array = np.asarray(array)
    return Value(array.shape, array.dtype, array.shape, array=array)


class Step:
    """One operation in both traces.

    Attributes:
      first, second: the operation of each trace.
      inputs: of the operation.
      kind: its name.
    """

    def __init__(self, first: Any, second: Any, inputs: list[Value]) -> None:
        self.first, self.second, self.inputs = first, second, inputs
        self.kind: str = first.primitive.name

    @property
    def results(self) -> list[Value]:
        """Shapes and types of its results."""
        pairs = zip(self.first.outvars, self.second.outvars, strict=True)
        shapes = [(sizes.shape(one.aval.shape, other.aval.shape), one.aval.dtype) for one, other in pairs]
        return [Value(shape, np.dtype(dtype), shape) for shape, dtype in shapes]

    @property
    def result(self) -> Value:
        """Shape and type of its only result."""
        return self.results[0]

    def __getitem__(self, name: str) -> Any:
        """A parameter."""
        return sizes.merged(self.first.params[name], self.second.params[name])


# Operations that are a program of their own -> the parameter that holds it.
_INSIDE = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
# Operations that make a known array large; they are not carried out before it is asked for whole.
_FREE = ("broadcast_in_dim", "iota")


def _computed(step: Step) -> list[Value]:
    """The results of an operation on known arrays."""
    arrays = [np.broadcast_to(each.array, each.shape) for each in step.inputs]  # type: ignore[arg-type]
    results = step.first.primitive.bind(*arrays, **step.first.params)
    return [known(each) for each in (results if step.first.primitive.multiple_results else [results])]


# --------------------------------------------------------------------------------------------------- element by element


def _elementwise(graph: Graph, step: Step, write: Callable[[Graph, Step, list[str], Value], Value]) -> Value:
    """An operation on every element; what is repeated in all inputs stays so in the result."""
    held: Shape = step.result.shape
    if step.inputs:
        axes = zip(*(each.held if each.shape else (1,) * len(held) for each in step.inputs), strict=True)
        held = tuple(next((size for size in sizes_here if size != 1), 1) for sizes_here in axes)
    like = dataclasses.replace(step.result, held=held)
    if all(each.array is not None for each in step.inputs):
        size = sizes.fixed(held)
        arrays = [np.broadcast_to(each.array, size) if each.shape else each.array for each in step.inputs]  # type: ignore[arg-type]
        return dataclasses.replace(like, array=np.asarray(step.first.primitive.bind(*arrays, **step.first.params)))
    return write(graph, step, [graph.named(each) for each in step.inputs], like)


def _operator(kind: str) -> Callable[[Graph, Step, list[str], Value], Value]:
    return lambda graph, step, names, like: graph.node(kind, names, like)


def _same(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    return dataclasses.replace(like, name=names[0])


def _square(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    return graph.node("Mul", [names[0], names[0]], like)


def _rsqrt(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    return graph.node("Reciprocal", [graph.node("Sqrt", names, like).name], like)


def _erfc(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    one = graph.store(np.array(1, like.dtype))
    return graph.node("Sub", [one, graph.node("Erf", names, like).name], like)


def _remainder(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    """With the sign of the dividend."""
    return graph.node("Mod", names, like, fmod=1)


def _integer_pow(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    return graph.node("Pow", [names[0], graph.store(np.array(step["y"], like.dtype))], like)


def _convert(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    return graph.cast(dataclasses.replace(like, name=names[0], dtype=step.inputs[0].dtype), like.dtype)


def _clamp(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    low, value, high = names
    return graph.node("Min", [graph.node("Max", [value, low], like).name, high], like)


def _select(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    if step.inputs[0].dtype != bool or len(names) != 3:
        raise UserError("this model cannot be written as ONNX: it chooses among more than two arrays")
    chosen, if_false, if_true = names
    return graph.node("Where", [chosen, if_true, if_false], like)


def _not_equal(graph: Graph, step: Step, names: list[str], like: Value) -> Value:
    return graph.node("Not", [graph.node("Equal", names, like).name], like)


_ELEMENTWISE: dict[str, Callable[[Graph, Step, list[str], Value], Value]] = {
    "abs": _operator("Abs"),
    "add": _operator("Add"),
    "add_any": _operator("Add"),
    "and": _operator("And"),
    "ceil": _operator("Ceil"),
    "clamp": _clamp,
    "convert_element_type": _convert,
    "copy": _same,
    "copy_p": _same,
    "div": _operator("Div"),
    "eq": _operator("Equal"),
    "erf": _operator("Erf"),
    "erfc": _erfc,
    "exp": _operator("Exp"),
    "floor": _operator("Floor"),
    "ge": _operator("GreaterOrEqual"),
    "gt": _operator("Greater"),
    "integer_pow": _integer_pow,
    "le": _operator("LessOrEqual"),
    "log": _operator("Log"),
    "logistic": _operator("Sigmoid"),
    "lt": _operator("Less"),
    "max": _operator("Max"),
    "min": _operator("Min"),
    "mul": _operator("Mul"),
    "ne": _not_equal,
    "neg": _operator("Neg"),
    "not": _operator("Not"),
    "optimization_barrier": _same,
    "or": _operator("Or"),
    "pow": _operator("Pow"),
    "rem": _remainder,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "sign": _operator("Sign"),
    "sqrt": _operator("Sqrt"),
    "square": _square,
    "stop_gradient": _same,
    "sub": _operator("Sub"),
    "tanh": _operator("Tanh"),
}


# --------------------------------------------------------------------------------------------------------- whole arrays


def _broadcast(graph: Graph, step: Step) -> Value:
    """Puts axes of length one between the others; nothing is repeated."""
    (value,), result, places = step.inputs, step.result, step["broadcast_dimensions"]
    held: list[Size] = [1] * len(result.shape)
    for axis, place in enumerate(places):
        held[place] = value.held[axis]
    narrow = graph.reshape(dataclasses.replace(value, shape=value.held), tuple(held))
    return dataclasses.replace(narrow, shape=result.shape)


def _iota(graph: Graph, step: Step) -> Value:
    result, axis = step.result, step["dimension"]
    held = tuple(size if place == axis else 1 for place, size in enumerate(result.shape))
    length = result.shape[axis]
    if isinstance(length, int):
        numbers = np.arange(length, dtype=result.dtype).reshape(sizes.fixed(held))
        return dataclasses.replace(result, held=held, array=numbers)
    ends = [graph.named(graph.scalar(each, np.int64)) for each in (0, length, 1)]
    line = graph.node("Range", ends, Value((length,), np.dtype(np.int64), (length,)))
    return dataclasses.replace(graph.reshape(graph.cast(line, result.dtype), held), shape=result.shape)


def _reshape(graph: Graph, step: Step) -> Value:
    return graph.reshape(graph.whole(step.inputs[0]), step.result.shape)


def _transpose(graph: Graph, step: Step) -> Value:
    return graph.transpose(step.inputs[0], step["permutation"])


def _reduce(kind: str, axes_are_input: bool = False) -> Callable[[Graph, Step], Value]:
    def write(graph: Graph, step: Step) -> Value:
        value, axes = graph.whole(step.inputs[0]), list(step["axes"])
        if axes_are_input:
            return graph.node(kind, [graph.named(value), graph.integers(*axes)], step.result, keepdims=0)
        return graph.node(kind, [graph.named(value)], step.result, axes=axes, keepdims=0)

    return write


def _argmax(graph: Graph, step: Step) -> Value:
    (axis,) = step["axes"]
    like = dataclasses.replace(step.result, dtype=np.dtype(np.int64))
    found = graph.node("ArgMax", [graph.named(graph.whole(step.inputs[0]))], like, axis=axis, keepdims=0)
    return graph.cast(found, step.result.dtype)


def _concatenate(graph: Graph, step: Step) -> Value:
    names = [graph.named(graph.whole(each)) for each in step.inputs]
    return graph.node("Concat", names, step.result, axis=step["dimension"])


def _tile(graph: Graph, step: Step) -> Value:
    repeats = step["reps"]
    if not all(isinstance(count, int) for count in repeats):
        raise sizes.Differs("it repeats an array as often as there are samples")
    return graph.node("Tile", [graph.named(graph.whole(step.inputs[0])), graph.integers(*repeats)], step.result)


def _stack(graph: Graph, step: Step) -> Value:
    axis = step["axis"]
    return _stacked(graph, step.inputs, axis, step.result)


def _stacked(graph: Graph, values: Sequence[Value], axis: int, result: Value) -> Value:
    """Arrays side by side along a new axis."""
    if not isinstance(result.shape[axis], int) or result.shape[axis] != len(values):
        raise sizes.Differs("it stacks as many arrays as there are samples")
    shape = (*result.shape[:axis], 1, *result.shape[axis + 1 :])
    names = [graph.named(graph.reshape(graph.whole(each), shape)) for each in values]
    return graph.node("Concat", names, result, axis=axis)


def _slice(graph: Graph, step: Step) -> Value:
    value, strides = graph.whole(step.inputs[0]), step["strides"] or (1,) * len(step.result.shape)
    for axis, (start, stop, stride) in enumerate(
        zip(step["start_indices"], step["limit_indices"], strides, strict=True)
    ):
        if (start, stop, stride) != (0, value.shape[axis], 1):
            shape = (*value.shape[:axis], step.result.shape[axis], *value.shape[axis + 1 :])
            value = graph.slice(value, axis, start, stop, stride, shape)
    return value


def _reverse(graph: Graph, step: Step) -> Value:
    value = graph.whole(step.inputs[0])
    for axis in step["dimensions"]:
        inputs = [graph.named(value), *map(graph.integers, (-1, -_ALL, axis, -1))]
        value = graph.node("Slice", inputs, value)
    return value


def _split(graph: Graph, step: Step) -> list[Value]:
    value, axis, start = graph.whole(step.inputs[0]), step["axis"], Growing(0, 0)
    results = []
    for length, result in zip(step["sizes"], step.results, strict=True):
        length = length if isinstance(length, Growing) else Growing(0, length)
        stop = Growing(start.per_sample + length.per_sample, start.fixed + length.fixed)
        first, last = (each if each.per_sample else each.fixed for each in (start, stop))
        only = result.shape == value.shape
        results.append(value if only else graph.slice(value, axis, first, last, 1, result.shape))
        start = stop
    return results


def _pad(graph: Graph, step: Step) -> Value:
    value, filling = step.inputs
    low, high, between = zip(*step["padding_config"], strict=True)
    if any(between) or min((*low, *high)) < 0:
        raise UserError("this model cannot be written as ONNX: it pads between the elements of an array, or cuts them")
    inputs = [graph.named(graph.whole(value)), graph.integers(*low, *high), graph.named(filling)]
    return graph.node("Pad", inputs, step.result, mode="constant")


def _dot(graph: Graph, step: Step) -> Value:
    """A product over common axes: [batch, free, summed] times [batch, summed, free]."""
    (left_summed, right_summed), (left_batch, right_batch) = step["dimension_numbers"]
    left, right = map(graph.whole, step.inputs)

    def free(value: Value, *taken: Sequence[int]) -> list[int]:
        return [axis for axis in range(len(value.shape)) if not any(axis in some for some in taken)]

    left_free, right_free = free(left, left_summed, left_batch), free(right, right_summed, right_batch)

    def product(value: Value, axes: Sequence[int]) -> Size:
        return sizes.times(*(value.shape[axis] for axis in axes))

    summed = product(left, left_summed)
    batch = [left.shape[axis] for axis in left_batch]
    rows, columns = product(left, left_free), product(right, right_free)
    # The axes of a batch stay apart where they are the first ones: one of them may grow.
    shapes = ((*batch, rows, summed), (*batch, summed, columns))
    first = graph.reshape(graph.transpose(left, [*left_batch, *left_free, *left_summed]), shapes[0])
    second = graph.reshape(graph.transpose(right, [*right_batch, *right_summed, *right_free]), shapes[1])
    made = (*batch, rows, columns)
    like = Value(made, step.result.dtype, made)
    matrix = graph.node("MatMul", [graph.named(first), graph.named(second)], like)
    return graph.reshape(matrix, step.result.shape)


def _conv(graph: Graph, step: Step) -> Value:
    numbers = step.first.params["dimension_numbers"]
    if any(each != 1 for each in step["lhs_dilation"]) or step["batch_group_count"] != 1:
        raise UserError("this model cannot be written as ONNX: it has a transposed convolution")
    image = graph.transpose(graph.whole(step.inputs[0]), numbers.lhs_spec)
    kernel = graph.transpose(graph.whole(step.inputs[1]), numbers.rhs_spec)
    result = step.result
    shape = tuple(result.shape[axis] for axis in numbers.out_spec)
    low, high = zip(*step["padding"], strict=True)
    made = graph.node(
        "Conv",
        [graph.named(image), graph.named(kernel)],
        Value(shape, result.dtype, shape),
        strides=list(step["window_strides"]),
        pads=[*low, *high],
        dilations=list(step["rhs_dilation"]),
        group=step["feature_group_count"],
    )
    return graph.transpose(made, np.argsort(numbers.out_spec).tolist())


def _max_pool(graph: Graph, step: Step) -> Value:
    """Largest values of windows over two axes."""
    window = step["window_dimensions"]
    places = [axis for axis, length in enumerate(window) if length != 1]
    dilated = [*step["base_dilation"], *step["window_dilation"]]
    if len(window) != 4 or any(each != 1 for each in dilated) or len(places) > 2:
        raise UserError("this model cannot be written as ONNX: it pools over other windows than those of images")
    # Axes of the image are the middle ones here, and the last ones there.
    image = graph.transpose(graph.whole(step.inputs[0]), (0, 3, 1, 2))
    result = step.result
    shape = tuple(result.shape[axis] for axis in (0, 3, 1, 2))
    low, high = zip(*step["padding"][1:3], strict=True)
    made = graph.node(
        "MaxPool",
        [graph.named(image)],
        Value(shape, result.dtype, shape),
        kernel_shape=list(window[1:3]),
        strides=list(step["window_strides"][1:3]),
        pads=[*low, *high],
    )
    return graph.transpose(made, (0, 2, 3, 1))


def _gather(graph: Graph, step: Step) -> Value:
    """Rows by their numbers: indices [..., k] of the first k axes; the other axes are taken whole."""
    operand, indices = map(graph.whole, step.inputs)
    numbers = step.first.params["dimension_numbers"]
    # Leading axes that both have in common, then those that the indices are of.
    together = tuple(range(len(numbers.operand_batching_dims)))
    chosen = tuple(range(len(together), len(together) + len(numbers.start_index_map)))
    kept = operand.shape[len(together) + len(chosen) :]
    result = step.result
    usual = (
        numbers.operand_batching_dims == numbers.start_indices_batching_dims == together
        and numbers.start_index_map == numbers.collapsed_slice_dims == chosen
        and numbers.offset_dims == tuple(range(len(result.shape) - len(kept), len(result.shape)))
        and step["slice_sizes"] == ((1,) * len((*together, *chosen)) + kept)
    )
    if not usual:
        raise UserError("this model cannot be written as ONNX: it takes parts of an array in an unusual way")
    names = [graph.named(operand), graph.named(graph.cast(indices, np.int64))]
    return graph.node("GatherND", names, result, batch_dims=len(together))


def _scan(graph: Graph, step: Step) -> list[Value]:
    """A loop, written out."""
    constants, carried, length = step["num_consts"], step["num_carry"], step["length"]
    if not isinstance(length, int):
        raise sizes.Differs("it loops over the samples of a batch")
    bodies = [each.params["jaxpr"] for each in (step.first, step.second)]
    fixed, carry = step.inputs[:constants], step.inputs[constants : constants + carried]
    over = [graph.whole(each) for each in step.inputs[constants + carried :]]
    collected: list[list[Value]] = []
    places = range(length)[::-1] if step["reverse"] else range(length)
    for place in places:
        outcome = graph.run(bodies[0], bodies[1], [*fixed, *carry, *(_row(graph, each, place) for each in over)])
        carry = outcome[:carried]
        collected.append(outcome[carried:])
    if step["reverse"]:
        collected = collected[::-1]
    rows = [list(each) for each in zip(*collected, strict=True)]
    return [*carry, *(_stacked(graph, each, 0, like) for each, like in zip(rows, step.results[carried:], strict=True))]


def _row(graph: Graph, value: Value, place: int) -> Value:
    """One row of an array."""
    if value.array is not None:
        return known(value.array[place])
    row = graph.slice(value, 0, place, place + 1, 1, (1, *value.shape[1:]))
    return graph.reshape(row, value.shape[1:])


_OPERATIONS: dict[str, Callable[[Graph, Step], Value | list[Value]]] = {
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "expand_dims": _reshape,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_sum": _reduce("ReduceSum", axes_are_input=True),
    "reduce_window_max": _max_pool,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _reshape,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
