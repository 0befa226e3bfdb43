"""`mnist.v1.PredictionService`: this project's own protocol."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import grpc
import numpy as np

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceServicer
from server.errors import InvalidInput
from server.interceptors import to_status
from server.model import IMAGE_PIXELS, Answers, Floats
from server.repository import Entry, Served
from server.servicers.common import Core, in_range


class PredictionServicer(PredictionServiceServicer):
    """`mnist.v1.PredictionService`.

    Args:
        core: the way to the models.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def Predict(
        self, request: pb.PredictRequest, context: grpc.ServicerContext
    ) -> pb.PredictResponse:
        """Answers one image."""
        pixels = _one_image(request.pixels)
        served, answers = self._core.answer(request.model, request.model_version, pixels, context)
        return pb.PredictResponse(
            prediction=_prediction(answers), model=served.name, model_version=served.version
        )

    def PredictBatch(
        self, request: pb.PredictBatchRequest, context: grpc.ServicerContext
    ) -> pb.PredictBatchResponse:
        """Answers up to `max_batch` images."""
        pixels = _images(request.pixels, self._core.repository.limits.max_batch)
        served, answers = self._core.answer(request.model, request.model_version, pixels, context)
        response = _predictions(answers)
        response.model, response.model_version = served.name, served.version
        return response

    def PredictStream(
        self, request_iterator: Iterator[pb.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.PredictStreamResponse]:
        """Answers images as they come; a bad one is answered with its error."""
        with self._core.stream():
            for request in request_iterator:
                yield self._answer_item(request, context)

    def _answer_item(
        self, request: pb.PredictStreamRequest, context: grpc.ServicerContext
    ) -> pb.PredictStreamResponse:
        try:
            pixels = _one_image(request.pixels)
            served, answers = self._core.answer(
                request.model, request.model_version, pixels, context
            )
        except Exception as error:  # noqa: BLE001 - an item's failure must not end the stream
            return pb.PredictStreamResponse(error=to_status(error))
        return pb.PredictStreamResponse(
            prediction=_prediction(answers), model=served.name, model_version=served.version
        )

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Lists every version with its provenance."""
        repository = self._core.repository
        entries = repository.entries()
        default = repository.newest(repository.default)
        return pb.ListModelsResponse(models=[_model(entry, default) for entry in entries])


def _one_image(pixels: Sequence[float]) -> Floats:
    if len(pixels) != IMAGE_PIXELS:
        raise InvalidInput(
            "pixels",
            f"{len(pixels)} values were sent: send {IMAGE_PIXELS}, one 28×28 image row by row.",
        )
    return in_range(np.array(pixels, np.float32), "pixels")


def _images(pixels: Sequence[float], most: int) -> Floats:
    count, rest = divmod(len(pixels), IMAGE_PIXELS)
    if rest or not count:
        raise InvalidInput(
            "pixels",
            f"{len(pixels)} values were sent: send {IMAGE_PIXELS} for each image, and one image "
            "at least.",
        )
    if count > most:
        raise InvalidInput("pixels", f"{count} images were sent: send at most {most} in one call.")
    return in_range(np.array(pixels, np.float32), "pixels")


def _prediction(answers: Answers) -> pb.Prediction:
    # Lists, since protobuf takes numpy's scalars one by one at several times the cost.
    logits, probabilities = answers.logits[0].tolist(), answers.probabilities[0].tolist()
    digit = logits.index(max(logits))
    return pb.Prediction(
        digit=digit, confidence=probabilities[digit], probabilities=probabilities, logits=logits
    )


# A prediction's bytes in a PredictBatchResponse, and where in them its values stand: for every
# prediction the same, so numpy writes all of a batch at once, in a sixth of the time.
_PREDICTION = pb.PredictBatchResponse(
    predictions=[pb.Prediction(digit=1, confidence=1, probabilities=[1] * 10, logits=[1] * 10)]
).SerializeToString()
_VALUES = np.dtype(
    {
        "names": ["digit", "confidence", "probabilities", "logits"],
        "formats": ["u1", "<f4", ("<f4", 10), ("<f4", 10)],
        "offsets": [3, 5, 11, 53],
        "itemsize": len(_PREDICTION),
    }
)


def _predictions(answers: Answers) -> pb.PredictBatchResponse:
    data = bytearray(_PREDICTION * len(answers.logits))
    values = np.frombuffer(data, _VALUES)
    values["digit"] = answers.logits.argmax(axis=1)
    values["confidence"] = answers.probabilities.max(axis=1)
    values["probabilities"] = answers.probabilities
    values["logits"] = answers.logits
    return pb.PredictBatchResponse.FromString(bytes(data))


def _model(entry: Entry, default: Served | None) -> pb.Model:
    model = pb.Model(name=entry.name, version=entry.version)
    if entry.served is None:
        return model
    model.ready = True
    model.default = entry.served is default
    for key, value in asdict(entry.served.metadata).items():
        if key == "created":
            model.created.FromDatetime(value)
        else:
            setattr(model, key, value)
    return model
