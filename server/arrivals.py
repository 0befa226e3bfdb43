"""How many calls are about to be submitted: company that a run is worth waiting for."""

import threading


class Arrivals:
    """Counts calls whose message is here, until their own thread begins on them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self.count = 0

    def come(self) -> None:
        """Counts a call whose message is here."""
        with self._mutex:
            self.count += 1

    def go(self) -> None:
        """Forgets a call whose thread has begun on it."""
        with self._mutex:
            self.count -= 1
