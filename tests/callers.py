"""Callers that never stop asking, here or, as a script, in the client's container.

`python callers.py TARGET` prints "calling" once it does, and when its stdin ends one JSON
object: how often each outcome came. An outcome is an answer's version and first logit,
or an error. With `--plain` they use nothing but the stubs, and send no call again.
"""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np

from client import ClientError, DigitClient
from proto.mnist.v1 import prediction_service_pb2 as pb
from proto.mnist.v1.prediction_service_pb2_grpc import PredictionServiceStub

ROOT = Path(__file__).parent.parent
THREADS = 8
BLANK = np.zeros(784)

Outcome = TypeVar("Outcome")


def main(target: str, *, plain: bool) -> None:
    """Calls `target` from `THREADS` threads."""
    with _plain(target) if plain else digit_client(target) as ask:
        first = ask()
        with asking(ask, THREADS) as outcomes:
            print("calling", flush=True)  # noqa: T201 - `calling` reads it
            sys.stdin.read()
    outcomes[first] += 1
    print(json.dumps(outcomes))  # noqa: T201 - as above


@contextmanager
def asking(ask: Callable[[], Outcome], threads: int) -> Iterator[Counter[Outcome]]:
    """Asks without a pause from so many threads; yields how often each outcome came."""
    outcomes: Counter[Outcome] = Counter()
    leaving = threading.Event()

    def call() -> None:
        while not leaving.is_set():
            outcomes[ask()] += 1

    callers = [threading.Thread(target=call) for _ in range(threads)]
    for caller in callers:
        caller.start()
    try:
        yield outcomes
    finally:
        leaving.set()
        for caller in callers:
            caller.join()


@contextmanager
def digit_client(target: str) -> Iterator[Callable[[], str]]:
    """Yields what asks for one prediction with the client."""
    with DigitClient(target) as client:

        def ask() -> str:
            try:
                answer = client.predict(BLANK)
            except ClientError as error:
                return repr(error)
            return f"{answer.model_version} {answer.logits[0]:.2f}"

        yield ask


@contextmanager
def _plain(target: str) -> Iterator[Callable[[], str]]:
    with grpc.insecure_channel(target, [("grpc.enable_retries", 0)]) as channel:
        stub = PredictionServiceStub(channel)

        def ask() -> str:
            try:
                answer = stub.Predict(pb.PredictRequest(pixels=BLANK), timeout=5)
            except grpc.RpcError as error:
                return str(error)
            return f"{answer.model_version} {answer.prediction.logits[0]:.2f}"

        yield ask


@contextmanager
def calling(*command: str) -> Iterator[Counter[str]]:
    """Runs a command that runs this script; yields its outcomes, which are there afterwards."""
    outcomes: Counter[str] = Counter()
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "calling\n"
        yield outcomes
        process.stdin.close()
        outcomes.update(json.loads(process.stdout.read()))


if __name__ == "__main__":
    main(sys.argv[1], plain="--plain" in sys.argv)
