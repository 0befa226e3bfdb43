"""Callers that never stop asking, here or, as a script, in the client's container.

`python callers.py TARGET` prints "calling" once it does, and when its stdin ends one JSON
object: how often each outcome came. An outcome is an answer's version and first logit,
or an error.
"""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from client import ClientError, DigitClient

ROOT = Path(__file__).parent.parent
THREADS = 8


def main(target: str) -> None:
    """Calls `target` from `THREADS` threads."""
    outcomes: Counter[str] = Counter()
    leaving = threading.Event()

    def call() -> None:
        while not leaving.is_set():
            try:
                answer = client.predict(np.zeros(784))
            except ClientError as error:
                outcomes[repr(error)] += 1
            else:
                outcomes[f"{answer.model_version} {answer.logits[0]:.2f}"] += 1

    with DigitClient(target) as client:
        client.predict(np.zeros(784))
        threads = [threading.Thread(target=call) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        print("calling", flush=True)  # noqa: T201 - `calling` reads it
        sys.stdin.read()
        leaving.set()
        for thread in threads:
            thread.join()
    print(json.dumps(outcomes))  # noqa: T201 - as above


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
    main(sys.argv[1])
