"""Leaving on SIGTERM or SIGINT, which are waited for: a handler could deadlock with anything."""

import signal

STOP = {signal.SIGTERM, signal.SIGINT}


def hold() -> None:
    """Holds them back in this thread and in all that it starts.

    To be called before numpy and onnxruntime are imported: each starts a thread then,
    and a signal to the process ends it in whichever thread does not hold it back.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)


def wait() -> None:
    """Returns when one of them has come, at once if it did since `hold`."""
    signal.sigwait(STOP)
