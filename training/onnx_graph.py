"""The ONNX graph: a model with softmax and weights in it, and nothing of this machine."""

import warnings

import onnx
import torch
from onnx.numpy_helper import to_array
from torch import Tensor, nn

from training.models import ARCHITECTURES, example_pixels

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


def from_onnx(proto: onnx.ModelProto) -> nn.Sequential:
    """Returns an exported model as a module again, in evaluation mode.

    Its batch norms stay in the convolutions that they were folded into.

    Args:
        proto: the model in float, with its metadata.

    Raises:
        KeyError: if it is in int8, or its architecture is none of `ARCHITECTURES` as they are.
    """
    facts = {entry.key: entry.value for entry in proto.metadata_props}
    weights = {one.name: torch.tensor(to_array(one)) for one in proto.graph.initializer}
    layers = []
    for number, layer in enumerate(ARCHITECTURES[facts["architecture"]]()):
        if isinstance(layer, nn.BatchNorm2d):
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear):
            name = f"model.{number}"
            # Where batch norm was folded in, the exporter has made up a bias of that name.
            biases = [
                weights[end] for end in (f"{name}.bias", f"{name}.weight_bias") if end in weights
            ]
            layer.weight = nn.Parameter(weights[f"{name}.weight"])
            layer.register_parameter("bias", nn.Parameter(biases[0]) if biases else None)
        layers.append(layer)
    return nn.Sequential(*layers).eval()


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
