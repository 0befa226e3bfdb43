"""The least a gRPC server in Python can do: our service, answering the same thing at once.

    python -m bench.noop PORT

What it reaches is the transport's share of what `python -m server` reaches.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

ANSWER = pb.PredictResponse(
    prediction=pb.Prediction(digit=1, confidence=1, probabilities=[0.1] * 10, logits=[0.1] * 10),
    model="noop",
    model_version=1,
)

BATCH_ANSWER = pb.PredictBatchResponse(predictions=[ANSWER.prediction] * 64)


class NoopServicer(PredictionServiceServicer):
    """Looks at nothing."""

    def Predict(
        self, request: pb.PredictRequest, context: grpc.ServicerContext
    ) -> pb.PredictResponse:
        """Answers the same to everyone."""
        return ANSWER

    def PredictBatch(
        self, request: pb.PredictBatchRequest, context: grpc.ServicerContext
    ) -> pb.PredictBatchResponse:
        """Answers the same to everyone, as if they had sent 64 images."""
        return BATCH_ANSWER


def main() -> None:
    """Serves until it is killed."""
    server = grpc.server(ThreadPoolExecutor(336), options=[("grpc.so_reuseport", 0)])
    servicer = NoopServicer()  # type: ignore[abstract] # the other methods stay unimplemented
    add_PredictionServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


main()
