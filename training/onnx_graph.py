"""The ONNX graph: a model with softmax and weights in it, and nothing of this machine."""

import warnings

import onnx
import torch
from torch import Tensor, nn

from training.models import example_pixels

OPSET = 20


class Served(nn.Module):
    """A model as it is served: from pixels to logits and probabilities.

    Args:
        model: from pixels to logits.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and probabilities, both [batch, 10], for pixels [batch, 1, 28, 28]."""
        logits = self.model(pixels)
        return logits, logits.softmax(dim=1)


def to_onnx(model: nn.Module) -> onnx.ModelProto:
    """Returns a model's ONNX form, of any batch size, with batch norm folded into convolutions.

    Args:
        model: from pixels to logits, in evaluation mode.
    """
    with warnings.catch_warnings():
        # torch's exporter copies an object whose class torch itself has deprecated.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        program = torch.onnx.export(
            Served(model).eval(),
            # Two images, because a dimension of one would be taken for a constant.
            (example_pixels(2),),
            input_names=["pixels"],
            output_names=["logits", "probabilities"],
            dynamic_shapes={"pixels": {0: "batch"}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    proto: onnx.ModelProto = program.model_proto  # type: ignore[union-attr] # None is for files
    _drop_notes(proto)
    return proto


def _drop_notes(proto: onnx.ModelProto) -> None:
    """Drops the exporter's notes to itself: stack traces, with this machine's paths."""
    graph = proto.graph
    for part in (
        graph,
        *graph.node,
        *graph.initializer,
        *graph.input,
        *graph.output,
        *graph.value_info,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
