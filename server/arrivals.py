"""How many calls are about to be submitted: company that a run is worth waiting for."""

import threading


class Arrivals:
    """Counts unary calls whose message is here and whose thread is still to begin on them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.count = 0

    def come(self) -> None:
        """Counts a call whose message is here."""
        with self._mutex:
            self.count += 1

    def go(self) -> None:
        """Counts it no longer: its thread has begun on it."""
        with self._mutex:
            self.count -= 1
