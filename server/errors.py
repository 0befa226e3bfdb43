"""What can go wrong while serving, in the domain's own words.

    ServingError
    ├── InvalidInput       the request itself is wrong; says which field and what to do
    ├── Forbidden          the server was started without what the call needs
    ├── ModelNotFound      no such model or version
    ├── NotReady           nothing to answer with yet, or no longer
    ├── QueueFull          as many calls wait as may; says when to come back
    ├── DeadlineExpired    the caller's deadline passed while its work was queued
    ├── Cancelled          the caller went away while its work was queued
    └── ModelRefused       a model's files are missing, corrupt or disagree with their proof

Nothing here knows gRPC; `server.interceptors` maps each to its status code.
`StartError` stands apart: it ends the process, not a call.
"""


class ServingError(Exception):
    """Base of all; its message is one sentence meant for the caller."""


class InvalidInput(ServingError):
    """The request is wrong, and sending it again will not help.

    Args:
        field: the request's field, such as "pixels"; empty for the request as a whole.
        description: what is wrong with it, and what to do.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}" if field else description)
        self.field = field
        self.description = description


class Forbidden(ServingError):
    """The server was not started with the flag that allows this call."""


class ModelNotFound(ServingError):
    """No model of that name, or no such version of it.

    Args:
        message: one sentence.
        model: what was asked for: a name, or a name and a version.
    """

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message)
        self.model = model


class NotReady(ServingError):
    """The server has nothing to answer with at the moment."""


class QueueFull(ServingError):
    """As many calls wait for the model as may.

    Args:
        message: one sentence.
        retry_after: seconds after which the caller may come back.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DeadlineExpired(ServingError):
    """The deadline passed before the work was run, and it never will be."""


class Cancelled(ServingError):
    """The caller went away before the work was run, and it never will be."""


class ModelRefused(ServingError):
    """A version's files are missing, corrupt, or do not answer as PyTorch did."""


class StartError(Exception):
    """The server cannot start; its message is one sentence that says what to do."""
