"""A model's graph is looked at before ONNX Runtime sees it: what no model of ours has is refused.

Only the outer form of the file is read (protocol buffers, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto):
which operators there are, and what each stored array claims to be. So the detector needs no ``onnx`` package. What ONNX
Runtime itself refuses depends on its version: some look for external data in the working directory where a graph comes
as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from schemas.errors import ModelError

#: Bytes of a graph. Protocol buffers end at 2 GiB; the largest of ours, a PCA of large images, has some hundred MB.
MOST_BYTES = 1 << 30

#: Operators, those of inner graphs and functions included. Models of ours have 40 to 400, several joined some thousand;
#: ONNX Runtime's optimisers take time by the square of them.
MOST_NODES = 20_000

#: Arrays that are stored in it.
MOST_TENSORS = 20_000

#: Axes of an array: ours have at most four.
MOST_AXES = 16

#: Elements along one axis, where a size is declared: beyond it products no longer fit 64 bits.
MOST_ELEMENTS = 1 << 31

#: Graphs inside of graphs (If, Loop): ours have none.
MOST_DEPTH = 4

#: Domains of operators. Others are custom ones, which only a library loaded beside the file could give meaning.
DOMAINS = frozenset({"", "ai.onnx"})

# Fields that are looked at, by message of onnx.proto; nothing else of a file is.
_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_OPSET_DOMAIN = 1
_FUNCTION_NODE, _FUNCTION_OPSETS = 7, 9
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE, _GRAPH_SPARSE = 1, 5, 11, 12, 13, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE = (22, 23)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 9, 13, 14
_TENSOR_TYPED = (4, 5, 6, 7, 10, 11)
_VALUE_TYPE, _TYPE_TENSOR, _TYPE_SHAPE, _SHAPE_DIM, _DIM_VALUE = 2, 1, 2, 1, 1

#: Bits of an element by TensorProto.DataType: float, int8, bool, double, half …; of other types there is none in ours.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Damaged(ValueError):
    """The bytes are no protocol buffer."""


def check_graph(data: bytes) -> None:
    """Raises ModelError for a graph that refers to other files, has operators of its own, or is absurdly large."""
    if len(data) > MOST_BYTES:
        raise _refused(f"it has {len(data):,} bytes, more than {MOST_BYTES:,}")
    try:
        _Reader().model(memoryview(data))
    except (_Damaged, RecursionError):
        raise ModelError("the model's graph is no ONNX file, or is damaged: fit the model again") from None


def _refused(why: str) -> ModelError:
    return ModelError(f"the model's graph is refused: {why}; use a model that `trainer fit` made")


@dataclass
class _Reader:
    nodes: int = 0
    tensors: int = 0

    def model(self, data: memoryview) -> None:
        graphs = 0
        for field, value in _fields(data):
            if field == _MODEL_GRAPH:
                graphs += 1
                self._graph(_message(value), 0)
            elif field == _MODEL_OPSETS:
                self._opset(_message(value))
            elif field == _MODEL_FUNCTIONS:
                self._function(_message(value))
            elif field == _MODEL_TRAINING:
                raise _refused("it holds instructions for training")
        if graphs != 1:
            raise _Damaged

    def _opset(self, data: memoryview) -> None:
        for field, value in _fields(data):
            if field == _OPSET_DOMAIN:
                self._domain(value)

    def _domain(self, value: int | memoryview, operator: str = "") -> None:
        name = _text(value)
        if name not in DOMAINS:
            what = f"the operator {operator}" if operator else "operators"
            raise _refused(f"it has {what} of the domain {name[:100]!r}, which no standard defines")

    def _function(self, data: memoryview) -> None:
        for field, value in _fields(data):
            if field == _FUNCTION_NODE:
                self._node(_message(value), 1)
            elif field == _FUNCTION_OPSETS:
                self._opset(_message(value))

    def _graph(self, data: memoryview, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise _refused(f"its graphs lie more than {MOST_DEPTH} deep in one another")
        for field, value in _fields(data):
            if field == _GRAPH_NODE:
                self._node(_message(value), depth)
            elif field == _GRAPH_TENSOR:
                self._tensor(_message(value))
            elif field == _GRAPH_SPARSE:
                raise _refused("it holds sparse arrays")
            elif field in (_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE):
                self._value(_message(value))

    def _node(self, data: memoryview, depth: int) -> None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _refused(f"it has more than {MOST_NODES:,} operators")
        operator, domain = "", None
        for field, value in _fields(data):
            if field == _NODE_OP:
                operator = _text(value)[:100]
            elif field == _NODE_DOMAIN:
                domain = value
            elif field == _NODE_ATTRIBUTE:
                self._attribute(_message(value), depth)
        if domain is not None:
            self._domain(domain, operator)

    def _attribute(self, data: memoryview, depth: int) -> None:
        for field, value in _fields(data):
            if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                self._tensor(_message(value))
            elif field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                self._graph(_message(value), depth + 1)
            elif field in _ATTRIBUTE_SPARSE:
                raise _refused("it holds sparse arrays")

    def _tensor(self, data: memoryview) -> None:
        """A stored array: none of it lies elsewhere, and it has as many bytes as it claims elements."""
        self.tensors += 1
        if self.tensors > MOST_TENSORS:
            raise _refused(f"it holds more than {MOST_TENSORS:,} arrays")
        dims: list[int] = []
        kind, raw, typed = 0, None, False
        for field, value in _fields(data):
            if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value != 0):
                raise _refused("it takes data from another file")
            if field == _TENSOR_DIMS:
                dims += [value] if isinstance(value, int) else list(_varints(value))
            elif field == _TENSOR_TYPE and isinstance(value, int):
                kind = value
            elif field == _TENSOR_RAW:
                raw = len(_message(value))
            typed = typed or field in _TENSOR_TYPED
        _check_dims(dims)
        elements = prod(dims)
        if raw is not None:
            if kind in _BITS and raw * 8 != elements * _BITS[kind]:
                raise _refused(f"an array of {elements:,} elements has {raw:,} bytes")
        elif elements and (not typed or elements > 8 * len(data)):  # an element takes a bit of the file at least
            raise _refused(f"an array of {elements:,} elements is not in it")

    def _value(self, data: memoryview) -> None:
        """A declared input, output or intermediate value."""
        for kind in _inner(data, _VALUE_TYPE):
            for tensor in _inner(kind, _TYPE_TENSOR):
                for shape in _inner(tensor, _TYPE_SHAPE):
                    sizes = [
                        value
                        for dim in _inner(shape, _SHAPE_DIM)
                        for field, value in _fields(dim)
                        if field == _DIM_VALUE and isinstance(value, int)
                    ]
                    _check_dims(sizes)


def _check_dims(dims: list[int]) -> None:
    if len(dims) > MOST_AXES:
        raise _refused(f"an array has {len(dims)} axes, more than {MOST_AXES}")
    if any(size >= MOST_ELEMENTS for size in dims) or prod(dims) >= MOST_ELEMENTS:  # negative ones are huge here
        raise _refused(f"an array is declared of {' × '.join(map(str, dims))} elements, {MOST_ELEMENTS:,} or more")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and content of each field of a message: an integer, or the bytes of what has a length."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise _Damaged
        if field == 0 or length > end - at:
            raise _Damaged
        yield field, data[at : at + length]
        at += length


def _inner(data: memoryview, wanted: int) -> Iterator[memoryview]:
    return (_message(value) for field, value in _fields(data) if field == wanted)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise _Damaged


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _Damaged
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode("utf-8", "replace")
