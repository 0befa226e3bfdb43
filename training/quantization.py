"""Int8: a smaller and quicker form of an exported model, by onnxruntime's static quantisation."""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

from training.checkpoint import Score
from training.data import Split
from training.errors import TrainingError
from training.parity import Parity

SUFFIX = "-int8"  # of the variant's name
MAX_DROP = 0.0005  # of the accuracy on the test images
CALIBRATION_IMAGES, CALIBRATION_BATCH = 1000, 100
# Softmax and whatever is not named here stay in float.
OPERATORS = ["Conv", "Gemm", "MaxPool", "Relu", "Reshape"]
# The golden answers remain PyTorch's, and the tolerance says how far from them int8 is on
# the golden inputs, and this much again. Integer sums are the same on every machine (see
# `quantize`), but the first convolution's float sums may round an activation to the next
# step: with pixels shaken in their last bits that moved a logit by up to a quarter of
# the difference from PyTorch's, while weights that are a tenth off move it by three times as
# much or more.
MARGIN = 1.5


class Calibration:
    """Feeds images to onnxruntime's calibration: its CalibrationDataReader.

    Args:
        images: from which the first `CALIBRATION_IMAGES` are taken.
    """

    def __init__(self, images: Split) -> None:
        first = Split(images.images[:CALIBRATION_IMAGES], images.labels[:CALIBRATION_IMAGES])
        self._batches = first.batches(CALIBRATION_BATCH)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Returns the next batch as the graph's input, or None after the last."""
        return next(({"pixels": pixels.numpy()} for pixels, _ in self._batches), None)


def quantize(proto: onnx.ModelProto, images: Split) -> onnx.ModelProto:
    """Returns a model's int8 form: the same graph with QuantizeLinear and DequantizeLinear in it.

    All that comes before the second convolution stays in float: onnxruntime's
    int8 kernel takes four times as long as its float one for a convolution of a
    single channel. So do the logits, which eight bits would clip.

    Weights have seven bits. Without VNNI, x86 adds pairs of products in 16 bits
    that saturate: 2 · 255 · 64 just fits, so that every processor gets the same sums.

    Args:
        proto: a model in float, as `to_onnx` returns it; it is left as it is.
        images: of the training set, on the CPU; their activations' ranges become int8's.
    """
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    nodes = list(proto.graph.node)
    second = [i for i, node in enumerate(nodes) if node.op_type == "Conv"][1]
    # ReLU and max pooling commute. Next to their convolution, int8's ReLU costs nothing;
    # float's pooling must be next to it, or onnxruntime quantises first and pools slowly.
    ordered = _swap(nodes[:second], "Relu", "MaxPool") + _swap(nodes[second:], "MaxPool", "Relu")
    proto.graph.ClearField("node")
    proto.graph.ClearField("value_info")  # the shapes between, which pre-processing infers anew
    proto.graph.node.extend(ordered)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        # The exporter has folded what can be folded; doing it again adds domains nobody uses.
        quant_pre_process(path, path, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            path,
            path,
            Calibration(images),
            op_types_to_quantize=OPERATORS,
            nodes_to_exclude=[node.name for node in ordered[:second]],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        return onnx.load(path)


def _swap(nodes: list[onnx.NodeProto], first: str, second: str) -> list[onnx.NodeProto]:
    """Returns a chain of nodes in which every `first` before a `second` comes after it."""
    nodes = list(nodes)
    for i in range(len(nodes) - 1):
        one, other = nodes[i : i + 2]
        if (one.op_type, other.op_type) == (first, second):
            other.input[0], one.input[0] = one.input[0], one.output[0]
            one.output[0], other.output[0] = other.output[0], one.output[0]
            nodes[i : i + 2] = other, one
    return nodes


def require(parity: Parity, float_test: Score) -> None:
    """Raises a TrainingError if int8 answers so many fewer images right than `MAX_DROP` allows."""
    lost = round((float_test.accuracy - parity.accuracy) * parity.images)
    if lost > MAX_DROP * parity.images:
        raise TrainingError(
            f"In int8, {parity.accuracy:.2%} of {parity.images} test images are right, and "
            f"{float_test.accuracy:.2%} in float: more than {MAX_DROP:.2%} would be lost. "
            "Nothing was exported; serve it in float."
        )


def facts(parity: Parity, float_test: Score, golden_difference: float) -> dict[str, str]:
    """Returns what the metadata_props of an int8 model say otherwise than the float model's.

    Args:
        parity: what comparing it with PyTorch found.
        float_test: the float model's score on the test images.
        golden_difference: the largest between its logits and PyTorch's on the golden inputs.
    """
    how = {
        "format": "static QDQ",
        "activations": "uint8",
        "weights": "int8 of 7 bits, per channel",
        "calibration_images": CALIBRATION_IMAGES,
        "onnxruntime_version": version("onnxruntime"),
    }
    return {
        "quantization": json.dumps(how),
        "test_accuracy": repr(parity.accuracy),
        "float_test_accuracy": repr(float_test.accuracy),
        "accuracy_drop": f"{float_test.accuracy - parity.accuracy:.4f}",
        "golden_tolerance": f"{MARGIN * golden_difference:.2g}",
    }
