"""Many calls, and what memory they leave behind: `make soak`.

    python -m bench.soak

Fails where the server grows by more than `MOST_GROWTH` after warming up, or where
a leak that was planted is not seen. What it finds goes to bench/soak.json.
"""

import json
from pathlib import Path

from rich.console import Console

from bench.h2load import load
from bench.servers import LOAD_CPU, OURS, running

WARM_UP_CALLS = 60_000  # by then all threads that this load needs are there
CALLS = 200_000
LEAKY_CALLS = 20_000  # of 1 KiB each: 20 MiB, far more than the growth that is let pass
MOST_GROWTH = 0.02
RESULTS = Path("bench/soak.json")


def main() -> None:
    """Soaks the server, then the leaky one."""
    ours = growth("server", CALLS)
    leaky = growth("bench.leaky", LEAKY_CALLS)
    record = {"command": "make soak", "calls": CALLS, "growth": ours, "growth_with_leak": leaky}
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    Console().print(
        f"grew by {ours:.2%} over {CALLS:,} calls; with a leak by {leaky:.2%} over {LEAKY_CALLS:,}"
    )
    if ours > MOST_GROWTH:
        raise SystemExit(f"The server leaks: more than {MOST_GROWTH:.0%} is not let pass.")
    if leaky <= MOST_GROWTH:
        raise SystemExit("The planted leak was not seen: this soak proves nothing.")


def growth(module: str, calls: int) -> float:
    """Returns by what fraction resident memory grows over so many calls, once warm."""

    def send(port: int, count: int) -> None:
        load(port, "Predict", calls=count, connections=4, streams=8, cpu=LOAD_CPU)

    with running(module, *OURS) as server:
        send(server.port, WARM_UP_CALLS)
        before = server.resident_mib()
        send(server.port, calls)
        return server.resident_mib() / before - 1


if __name__ == "__main__":
    main()
