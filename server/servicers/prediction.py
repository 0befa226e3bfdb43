"""`mnist.v1.PredictionService`: this project's own protocol."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial

import grpc
import numpy as np

from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceServicer
from server import calls
from server.batcher import Work
from server.errors import Cancelled, InvalidInput, QueueFull
from server.interceptors import to_status
from server.model import IMAGE_PIXELS, IMAGE_SHAPE, Answers, Floats
from server.repository import Entry, Repository, Served

# Open PredictStream calls: each holds a thread for as long as it is open.
MAX_STREAMS = 64
STREAM_RETRY_AFTER = 1.0  # seconds: streams last longer than calls


class PredictionServicer(PredictionServiceServicer):
    """`mnist.v1.PredictionService`.

    Args:
        repository: the models that answer.
        max_batch: the most images in one PredictBatch.
    """

    def __init__(self, repository: Repository, max_batch: int) -> None:
        self._repository = repository
        self._max_batch = max_batch
        self._free_streams = threading.BoundedSemaphore(MAX_STREAMS)

    def Predict(
        self, request: pb.PredictRequest, context: grpc.ServicerContext
    ) -> pb.PredictResponse:
        """Answers one image."""
        served, answers = self._answer(request, _one_image(request.pixels), context)
        return pb.PredictResponse(
            prediction=_predictions(answers)[0], model=served.name, model_version=served.version
        )

    def PredictBatch(
        self, request: pb.PredictBatchRequest, context: grpc.ServicerContext
    ) -> pb.PredictBatchResponse:
        """Answers up to `max_batch` images."""
        pixels = _images(request.pixels, self._max_batch)
        served, answers = self._answer(request, pixels, context)
        return pb.PredictBatchResponse(
            predictions=_predictions(answers), model=served.name, model_version=served.version
        )

    def PredictStream(
        self, request_iterator: Iterator[pb.PredictStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.PredictStreamResponse]:
        """Answers images as they come; a bad one is answered with its error."""
        if not self._free_streams.acquire(blocking=False):
            raise QueueFull(
                f"All {MAX_STREAMS} streams are taken: try again later, or call PredictBatch.",
                STREAM_RETRY_AFTER,
            )
        try:
            for request in request_iterator:
                yield self._answer_item(request, context)
        finally:
            self._free_streams.release()

    def _answer_item(
        self, request: pb.PredictStreamRequest, context: grpc.ServicerContext
    ) -> pb.PredictStreamResponse:
        try:
            served, answers = self._answer(request, _one_image(request.pixels), context)
        except Exception as error:  # noqa: BLE001 - an item's failure must not end the stream
            return pb.PredictStreamResponse(error=to_status(error))
        return pb.PredictStreamResponse(
            prediction=_predictions(answers)[0], model=served.name, model_version=served.version
        )

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Lists every version with its provenance."""
        entries = self._repository.entries()
        default = self._repository.newest(self._repository.default)
        return pb.ListModelsResponse(models=[_model(entry, default) for entry in entries])

    def _answer(
        self,
        request: pb.PredictRequest | pb.PredictBatchRequest | pb.PredictStreamRequest,
        pixels: Floats,
        context: grpc.ServicerContext,
    ) -> tuple[Served, Answers]:
        served = self._repository.get(request.model, request.model_version)
        call = calls.current.get()
        call.model, call.version = served.name, served.version
        call.images += len(pixels)
        work = Work(pixels, deadline=time.monotonic() + context.time_remaining())
        if not context.add_callback(partial(served.batcher.cancel, work)):
            raise Cancelled("The caller went away before its call was queued.")
        answers = served.batcher.submit(work)
        call.queue_seconds += work.queue_seconds
        call.run_seconds += work.run_seconds
        if call.trace:
            call.trace.answered(work)
        return served, answers


def _one_image(pixels: Sequence[float]) -> Floats:
    if len(pixels) != IMAGE_PIXELS:
        raise InvalidInput(
            "pixels",
            f"{len(pixels)} values were sent: send {IMAGE_PIXELS}, one 28×28 image row by row.",
        )
    return _in_range(np.array(pixels, np.float32))


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
    return _in_range(np.array(pixels, np.float32))


def _in_range(values: Floats) -> Floats:
    """Returns the images as the model takes them, if all their values are finite and in [0, 1]."""
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:  # both false where there is a NaN
        return values.reshape(-1, *IMAGE_SHAPE)
    wrong = int(np.argmax(~((values >= 0) & (values <= 1))))
    advice = "send finite values from 0 (background) to 1 (ink)"
    if low >= 0 and 1 < high <= np.iinfo(np.uint8).max:
        advice = "values look like bytes from 0 to 255: divide by 255"
    raise InvalidInput("pixels", f"pixels[{wrong}] is {values[wrong]:g}, out of [0, 1]: {advice}.")


def _predictions(answers: Answers) -> list[pb.Prediction]:
    # Lists, since protobuf takes numpy's scalars one by one at several times the cost.
    return [
        pb.Prediction(
            digit=digit, confidence=probabilities[digit], probabilities=probabilities, logits=logits
        )
        for digit, probabilities, logits in zip(
            answers.logits.argmax(axis=1).tolist(),
            answers.probabilities.tolist(),
            answers.logits.tolist(),
            strict=True,
        )
    ]


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
