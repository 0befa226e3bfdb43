"""The tensors that every model here takes and gives."""

from dataclasses import dataclass

from proto.inference import grpc_service_pb2 as pb
from server.model import IMAGE_SHAPE


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An input or output; there are no others than those below.

    Attributes:
        datatype: the protocol's name, such as "FP32".
        config: the same in a model's configuration.
        shape: of one image's part.
    """

    name: str
    datatype: str
    config: pb.DataType
    shape: tuple[int, ...]


INPUT = Tensor("pixels", "FP32", pb.TYPE_FP32, IMAGE_SHAPE)
LOGITS = Tensor("logits", "FP32", pb.TYPE_FP32, (10,))
PROBABILITIES = Tensor("probabilities", "FP32", pb.TYPE_FP32, (10,))
DIGIT = Tensor("digit", "INT64", pb.TYPE_INT64, ())
OUTPUTS = (LOGITS, PROBABILITIES, DIGIT)
