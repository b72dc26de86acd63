"""Weights of an ONNX model as whole numbers of 8 bits: a quarter of the size, computed in fp32.

Each row or column of a matrix, whichever loses less, has a scale of its own, and the matrix is multiplied out when the
model is called, outside its loops. The activations stay in fp32. (onnxruntime's dynamic quantisation takes only
products whose second factor is a constant of the same graph: 2 of the 34 of sudoku_6x6, which saves no time.)
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SMALLEST = 1024  # smaller constants stay as they are
_LARGEST_INT = 127


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with its matrices in 8 bits."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants, nodes = [], []
    for constant in graph.initializer:
        values = numpy_helper.to_array(constant)
        if constant.data_type != TensorProto.FLOAT or values.ndim != 2 or values.size < _SMALLEST:
            constants.append(constant)
            continue
        axis, whole, scale = _rounded(values)
        name = constant.name
        constants.append(numpy_helper.from_array(whole, f"{name}/int8"))
        constants.append(numpy_helper.from_array(scale, f"{name}/scale"))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}/int8", f"{name}/scale"], [name], axis=axis))
    del graph.initializer[:]
    graph.initializer.extend(constants)
    computed = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *computed])
    onnx.checker.check_model(result)
    return result


def _rounded(values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """(axis of the scales, int8 values, fp32 scales) of a matrix, with the axis that loses less."""
    found = []
    for axis in (0, 1):
        scale = np.abs(values).max(axis=1 - axis) / _LARGEST_INT
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        spread = np.expand_dims(scale, 1 - axis)
        whole = np.rint(values / spread).astype(np.int8)
        found.append((float(np.square(whole * spread - values).sum()), axis, whole, scale))
    _, axis, whole, scale = min(found, key=lambda item: item[0])
    return axis, whole, scale
