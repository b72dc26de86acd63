"""ONNX graphs made of parts: each part is traced by itself, and loops are written around them.

A part that runs many times is traced once, and is in the file once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from exporting.step import Part
from exporting.trace import BATCH, quiet, trace

IR_VERSION = 10  # onnxruntime has read it since 1.18
_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.bool: TensorProto.BOOL,
}


class Carried(NamedTuple):
    """A value that a loop hands from one iteration to the next."""

    first: str  # the value before the first iteration, outside
    inside: str  # its name inside
    following: str  # the value at the end of an iteration, inside
    last: str  # the value after the last iteration, outside
    example: Tensor


class Graph:
    """A graph that grows: nodes in the order in which they run.

    Args:
        outer: the graph around this one, whose constants it shares; None: this is the outermost.
    """

    def __init__(self, outer: "Graph | None" = None):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {} if outer is None else outer.constants
        self.opsets: dict[str, int] = {} if outer is None else outer.opsets

    def add(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add a node."""
        self.nodes.append(helper.make_node(operator, list(inputs), list(outputs), **attributes))

    def constant(self, name: str, value: Any, dtype: Any) -> str:
        """Add a constant: its name."""
        self.constants[name] = numpy_helper.from_array(np.array(value, dtype), name)
        return name

    def include(self, part: Part, arguments: Sequence[Tensor], prefix: str, renamed: Mapping[str, str]) -> None:
        """Trace a part and add its nodes.

        Args:
            part: what to add.
            arguments: see `exporting.trace.trace`.
            prefix: of the names of all values inside, apart from weights.
            renamed: name of an argument or result of the part -> its name in the graph, if that is another one.
        """
        with quiet():
            program = torch.onnx.export(
                trace(part, arguments),
                dynamo=True,
                verbose=False,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
            )
        assert program is not None
        proto = program.model_proto
        assert not proto.functions
        self.opsets |= {opset.domain: opset.version for opset in proto.opset_import}
        names = {"": ""} | {name: renamed.get(name, name) for name in (*part.inputs, *part.outputs)}
        for constant in proto.graph.initializer:
            names[constant.name] = self._share(constant, prefix)
        for node in proto.graph.node:
            inputs, outputs = (
                [names.setdefault(value, f"{prefix}/{value}") for value in values]
                for values in (node.input, node.output)
            )
            own = helper.make_node(node.op_type, inputs, outputs, f"{prefix}/{node.name}", domain=node.domain)
            own.attribute.extend(node.attribute)
            self.nodes.append(own)

    def _share(self, constant: onnx.TensorProto, prefix: str) -> str:
        """Add a constant of a part, unless it is there already: its name."""
        for name in (constant.name, f"{prefix}/{constant.name}"):
            known = self.constants.get(name)
            if known is None:
                self.constants[name] = numpy_helper.from_array(numpy_helper.to_array(constant), name)
                return name
            if known.data_type == constant.data_type and np.array_equal(
                numpy_helper.to_array(known), numpy_helper.to_array(constant)
            ):
                return name
        raise AssertionError(f"two constants {constant.name} in {prefix}")

    def loop(
        self, name: str, count: str, body: "Graph", carried: Sequence[Carried], collected: Mapping[str, str]
    ) -> None:
        """Add a loop.

        Args:
            name: of the loop.
            count: the number of iterations, an int64 scalar.
            body: what an iteration computes; it also sees the values outside.
            carried: the values handed on.
            collected: name inside -> name outside of results that are collected, with a leading axis [iterations].
        """
        true = self.constant("true", True, np.bool_)
        inputs = [
            helper.make_tensor_value_info(f"{name}/iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{name}/goes_on", TensorProto.BOOL, []),
            *(value_info(value.inside, value.example) for value in carried),
        ]
        body.add("Identity", [f"{name}/goes_on"], [f"{name}/goes_on_still"])
        outputs = [
            helper.make_tensor_value_info(f"{name}/goes_on_still", TensorProto.BOOL, []),
            *(value_info(value.following, value.example) for value in carried),
            *(helper.make_tensor_value_info(inside, TensorProto.FLOAT, None) for inside in collected),
        ]
        graph = helper.make_graph(body.nodes, name, inputs, outputs)
        results = [*(value.last for value in carried), *collected.values()]
        self.add("Loop", [count, true, *(value.first for value in carried)], results, name=name, body=graph)

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """The finished model.

        Raises:
            onnx.checker.ValidationError: it is not valid.
        """
        graph = helper.make_graph(self.nodes, "model", inputs, outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model


def value_info(name: str, example: Tensor, *leading: str) -> onnx.ValueInfoProto:
    """An argument or result [*leading, batch, ...] with the dtype and the other sizes of an example [batch, ...]."""
    return helper.make_tensor_value_info(name, _TYPES[example.dtype], [*leading, BATCH, *example.shape[1:]])
