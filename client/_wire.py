"""The requests' bytes and the methods' paths.

Protobuf builds a request from an array in about 120 µs, value by value, which is
most of what a call costs. Yet a packed float field is nothing but its little-endian
bytes behind a tag and a length, and so is a bytes field: `BytesValue`, whose bytes
field has the number of `pixels`, writes the same in 1.5 µs. Serialised messages
joined end to end parse as one, so the request's other fields simply follow.
"""

from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health_pb2

from client._pixels import Pixels
from proto.mnist.v1 import prediction_service_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["PredictionService"]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]

PREDICT = f"/{_SERVICE.full_name}/Predict"
PREDICT_BATCH = f"/{_SERVICE.full_name}/PredictBatch"
PREDICT_STREAM = f"/{_SERVICE.full_name}/PredictStream"
LIST_MODELS = f"/{_SERVICE.full_name}/ListModels"
CHECK = f"/{_HEALTH.full_name}/Check"


def encode(pixels: Pixels, model: str, version: int) -> bytes:
    """Returns a serialised PredictRequest, PredictBatchRequest or PredictStreamRequest.

    Args:
        pixels: float32 of any shape, row by row.
        model: Name of the model; empty for the server's default.
        version: Version of the model; 0 for the newest.
    """
    values = BytesValue(value=pixels.astype("<f4", copy=False).tobytes())
    rest = pb.PredictRequest(model=model, model_version=version)
    return values.SerializeToString() + rest.SerializeToString()
