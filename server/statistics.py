"""What has become of a version's work since it was loaded; the numbers add up."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Duration:
    """How often something happened, and how many nanoseconds it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Adds one time that it happened."""
        self.count += 1
        self.ns += round(seconds * 1e9)


@dataclass(slots=True)
class Statistics:
    """Sums over calls and over runs of the network.

    A call is answered or it fails, so `compute.count` and `fail.count` add up to
    the calls that were submitted; the runs in `batches`, each times its images,
    add up to `images`.
    """

    images: int = 0  # answered
    last_run_ended: float = 0.0  # Unix time in seconds
    queue: Duration = field(default_factory=Duration)  # of calls that were answered
    compute: Duration = field(default_factory=Duration)  # of the same; batch-mates share a run
    fail: Duration = field(default_factory=Duration)  # calls that were dropped, or failed in a run
    batches: dict[int, Duration] = field(default_factory=lambda: defaultdict(Duration))

    def ran(self, images: int, waits: Sequence[float], seconds: float, ended: float) -> None:
        """Adds a run of so many images, for calls that had waited so many seconds each."""
        self.images += images
        self.last_run_ended = ended
        self.batches[images].add(seconds)
        for wait in waits:
            self.queue.add(wait)
            self.compute.add(seconds)
