"""The client library of the MNIST inference service, blocking and for asyncio.

    with DigitClient("localhost:50051") as client:
        print(client.predict(image).digit)

It needs proto, grpc and numpy. Preparing pictures (`client.images`) and the
commands of `python -m client` need more, and are not imported here.
"""

from client._async import AsyncDigitClient
from client._channel import TLS
from client._errors import (
    AccessDenied,
    ClientError,
    DeadlineExceeded,
    FieldViolation,
    InvalidInput,
    NotFound,
    Overloaded,
    ServerError,
    Unavailable,
)
from client._sync import DigitClient
from client._types import Health, Model, Prediction

__all__ = [
    "TLS",
    "AccessDenied",
    "AsyncDigitClient",
    "ClientError",
    "DeadlineExceeded",
    "DigitClient",
    "FieldViolation",
    "Health",
    "InvalidInput",
    "Model",
    "NotFound",
    "Overloaded",
    "Prediction",
    "ServerError",
    "Unavailable",
]

# So that traces and help name them as they are imported.
for _name in __all__:
    globals()[_name].__module__ = __name__
