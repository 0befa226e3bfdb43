"""What goes over HTTP, in both directions.

Requests are msgspec's, which stops at the first thing that is wrong. Pydantic reads a
body whole before it looks at it: one of 8 MB that is wrong in its second byte takes
it 2.8 s and 370 MB.
"""

from http import HTTPStatus
from typing import Annotated, Any, Self

import msgspec
from pydantic import BaseModel, Field

import client
from client.images import SIDE

# Whether a value lies in [0, 1] is the server's to say, so that callers of either
# protocol are told the same; here it is documented only.
Pixel = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1})]
Row = Annotated[list[Pixel], msgspec.Meta(min_length=SIDE, max_length=SIDE)]
Image = Annotated[list[Row], msgspec.Meta(min_length=SIDE, max_length=SIDE)]

# A one, as simple as can be.
ONE = [[int(y in range(4, 24) and x in (13, 14)) for x in range(SIDE)] for y in range(SIDE)]


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One image: 28 rows of 28 values from 0 (background) to 1 (ink)."""

    pixels: Annotated[Image, msgspec.Meta(examples=[ONE])]


class PredictBatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Some images, each 28 rows of 28 values from 0 (background) to 1 (ink)."""

    pixels: Annotated[list[Image], msgspec.Meta(min_length=1, examples=[[ONE, ONE]])]


REQUESTS = (PredictRequest, PredictBatchRequest)


class Prediction(BaseModel):
    """What a model sees in one image."""

    predicted_digit: Annotated[int, Field(ge=0, le=9)]
    confidence: Annotated[float, Field(description="The probability of the predicted digit.")]
    probabilities: Annotated[list[float], Field(min_length=10, max_length=10)]
    model: str
    model_version: int

    @classmethod
    def of(cls, prediction: client.Prediction, **more: Any) -> Self:
        """Takes what the server answered, and what a subclass has besides."""
        return cls.model_construct(
            predicted_digit=prediction.digit,
            confidence=prediction.confidence,
            probabilities=prediction.probabilities.tolist(),
            model=prediction.model,
            model_version=prediction.model_version,
            **more,
        )


class BatchPrediction(BaseModel):
    """What a model sees in each image of a batch, in their order."""

    predictions: list[Prediction]


class PicturePrediction(Prediction):
    """What a model sees in a picture, and the image that the picture was made into for it."""

    pixels: list[list[float]]


class Sample(PicturePrediction):
    """A digit that the project drew itself, and what a model sees in it.

    Strokes are lists of points (x, y) that the pen passes, as fractions of the side.
    """

    digit: Annotated[int, Field(ge=0, le=9)]
    strokes: list[list[tuple[float, float]]]


class Samples(BaseModel):
    """The ten samples."""

    samples: list[Sample]


class Models(BaseModel):
    """Every model and version that the server knows, and where each comes from."""

    models: list[client.Model]


class State(BaseModel):
    """Whether something is as it should be."""

    status: str


class Violation(BaseModel):
    """What is wrong with one field of a request."""

    field: Annotated[str, Field(description="Such as pixels[3][14].")]
    description: Annotated[str, Field(description="What is wrong with it and what to do.")]


class Problem(BaseModel):
    """Why a request was not answered: RFC 9457, with its id and the fields that are wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    request_id: Annotated[str, Field(description="By which the logs call this request.")]
    violations: list[Violation] = []

    @classmethod
    def of(
        cls, status: HTTPStatus, detail: str, request_id: str, violations: list[Violation]
    ) -> Self:
        """Builds the document; the title of a plain status is its phrase."""
        return cls(
            title=status.phrase,
            status=status,
            detail=detail,
            request_id=request_id,
            violations=violations,
        )
