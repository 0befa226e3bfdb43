"""One of several server processes, under `server.supervisor`."""

import os
import shutil
import signal
import sys
import threading

from server.app import App
from server.config import Config


def run(config: Config) -> None:
    """Serves until SIGTERM, or until the supervisor is gone.

    Raises:
        StartError: see `server.app`.
    """
    app = App(config, share_port=True)
    threading.Thread(target=_leave_with_the_supervisor, name="lifeline", daemon=True).start()
    app.run(on_serving=lambda: print("serving", flush=True))  # noqa: T201 - the supervisor reads it


def _leave_with_the_supervisor() -> None:
    sys.stdin.read()  # ends when the supervisor does
    # If it was killed, nobody else clears its metrics away.
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
