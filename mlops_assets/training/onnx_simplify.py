"""An ONNX model with fewer nodes and the very same answers, bit by bit.

skl2onnx converts each step of a pipeline for itself: it puts columns side by side, and takes them
apart in the next step. One row costs as much as the number of nodes, whoever asks; onnxruntime
takes out a few of them, but none of these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

#: Operators that are worked out if all their inputs are constants.
_WORKED_OUT = ("LabelEncoder",)
_PICKS = ("ArrayFeatureExtractor", "Gather")


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out what a model can do without; a model with branches stays as it is."""
    import onnx

    if any(a.type == onnx.AttributeProto.GRAPH for n in model.graph.node for a in n.attribute):
        return model
    changed = True
    while changed:
        graph = _Graph(model)
        changed = any(step(graph) for step in _STEPS)
    onnx.checker.check_model(model)
    return model


class _Graph:
    """A model's values by name, as they are at one moment."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model, self.graph = model, model.graph
        self.constants = {entry.name: entry for entry in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.outputs = {entry.name for entry in self.graph.output}

    @functools.cached_property
    def types(self) -> dict[str, onnx.TypeProto.Tensor]:
        """Type and shape of each value, as far as they can be told; takes a copy of the model."""
        from onnx import shape_inference

        inferred = shape_inference.infer_shapes(self._model).graph
        known = (*inferred.input, *inferred.value_info, *inferred.output)
        return {entry.name: entry.type.tensor_type for entry in known}

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The array of that name, if it is one of the model's own."""
        from onnx import numpy_helper

        found = self.constants.get(name)
        return None if found is None else numpy_helper.to_array(found)

    def users(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that take a value."""
        return [node for node in self.graph.node if name in node.input]

    def is_column(self, name: str) -> bool:
        """Whether a value is known to have the shape [n, 1]."""
        shape = self.types[name].shape.dim if name in self.types else []
        return len(shape) == 2 and shape[1].dim_value == 1

    def replace(self, node: onnx.NodeProto, by: str) -> None:
        """Use another value in the place of a node's only output, and drop the node."""
        for user in self.users(node.output[0]):
            user.input[:] = [by if name == node.output[0] else name for name in user.input]
        self.graph.node.remove(node)


def _work_out(graph: _Graph) -> bool:
    """Constants of constants, such as what an imputer puts in the place of a missing text."""
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    for node in graph.graph.node:
        arrays = [graph.constant(name) for name in node.input]
        if node.op_type in _WORKED_OUT and all(array is not None for array in arrays):
            feeds = dict(zip(node.input, arrays, strict=True))
            (found,) = ReferenceEvaluator(node).run(None, feeds)
            graph.graph.initializer.append(
                numpy_helper.from_array(np.asarray(found), node.output[0])
            )
            graph.graph.node.remove(node)
            return True
    return False


def _take_column(graph: _Graph) -> bool:
    """A column that is taken out of columns put side by side is the one that was put there."""
    for node in graph.graph.node:
        joined = graph.makers.get(node.input[0]) if node.op_type in _PICKS else None
        if joined is None or joined.op_type != "Concat" or node.output[0] in graph.outputs:
            continue
        index = graph.constant(node.input[1])
        across = _attributes(joined)["axis"] == 1
        # An extractor of features knows no axis: it is the last one.
        across &= node.op_type == "ArrayFeatureExtractor" or _attributes(node).get("axis") == 1
        if index is None or index.shape != (1,) or not across:
            continue
        if all(map(graph.is_column, joined.input)):
            graph.replace(node, joined.input[int(index[0])])
            return True
    return False


def _fill_in_one_step(graph: _Graph) -> bool:
    """A text that is filled in if missing, then looked up among categories: one look at all.

    The encoder of texts becomes one of the categories' numbers; what is missing has the number of
    what would be filled in, and what is no category has none.
    """
    for node in graph.graph.node:
        chosen = graph.makers.get(node.input[0]) if node.op_type == "OneHotEncoder" else None
        if chosen is None or chosen.op_type != "Where" or len(graph.users(node.input[0])) != 1:
            continue
        mask = _missing_texts(graph, chosen.input[0], chosen.input[2])
        filling, texts = graph.constant(chosen.input[1]), _attributes(node).get("cats_strings")
        if mask is None or filling is None or filling.size != 1 or not texts:
            continue
        numbers = {text: number for number, text in enumerate(texts) if text not in mask}
        filled = filling.item().encode()
        numbers |= {text: texts.index(filled) if filled in texts else -1 for text in mask}
        _encode_numbers(graph, node, chosen, numbers, len(texts))
        return True
    return False


def _missing_texts(graph: _Graph, mask: str, value: str) -> list[bytes] | None:
    """The texts for which a mask is true; None if it is not made of ``value`` in the known way."""
    cast = graph.makers.get(mask)
    encoder = graph.makers.get(cast.input[0]) if cast and cast.op_type == "Cast" else None
    if encoder is None or encoder.op_type != "LabelEncoder" or encoder.input[0] != value:
        return None
    found = _attributes(encoder)
    keys, values = found.get("keys_strings"), found.get("values_int64s")
    if not keys or not values or found.get("default_int64", -1) != 0 or set(values) != {1}:
        return None
    return keys


def _encode_numbers(
    graph: _Graph,
    node: onnx.NodeProto,
    chosen: onnx.NodeProto,
    numbers: dict[bytes, int],
    categories: int,
) -> None:
    from onnx import helper

    looked_up = helper.make_node(
        "LabelEncoder",
        [chosen.input[2]],
        [chosen.output[0]],
        name=chosen.name,
        domain="ai.onnx.ml",
        keys_strings=[*numbers],
        values_int64s=[*numbers.values()],
        default_int64=-1,
    )
    kept = [a for a in node.attribute if a.name != "cats_strings"]
    encoded = [*kept, helper.make_attribute("cats_int64s", range(categories))]
    del node.attribute[:]
    node.attribute.extend(encoded)
    place = [*graph.graph.node].index(chosen)
    graph.graph.node.remove(chosen)
    graph.graph.node.insert(place, looked_up)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _drop_cast(graph: _Graph) -> bool:
    """A cast to the type that a value has already."""
    for node in graph.graph.node:
        if node.op_type != "Cast" or node.input[0] not in graph.makers:
            continue
        (value,), (cast,) = node.input, node.output
        if len(graph.users(value)) != 1 or value in graph.outputs or value not in graph.types:
            continue
        if graph.types[value].elem_type == _attributes(node)["to"]:
            maker = graph.makers[value]
            maker.output[:] = [cast if name == value else name for name in maker.output]
            graph.graph.node.remove(node)
            return True
    return False


def _drop_unused(graph: _Graph) -> bool:
    """Nodes and constants that nothing depends on."""
    used = graph.outputs.union(*(node.input for node in graph.graph.node))
    for node in graph.graph.node:
        if used.isdisjoint(node.output):
            graph.graph.node.remove(node)
            return True
    for name, constant in graph.constants.items():
        if name not in used:
            graph.graph.initializer.remove(constant)
            return True
    return False


_STEPS: tuple[Callable[[_Graph], bool], ...] = (
    _work_out, _take_column, _fill_in_one_step, _drop_cast, _drop_unused,
)  # fmt: skip
