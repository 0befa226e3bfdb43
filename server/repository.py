"""The models that are served: what lies in `models/<name>/<version>/`, loaded and proved.

The directory may change while it is served. A new version answers once it has
proved itself; one that is refused changes nothing; one that is removed takes no
more calls, while those it has are finished. A model that was unloaded on request
stays so, whatever lies there, until it is loaded again.
"""

import re
import reprlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from server import metrics
from server.arrivals import Arrivals
from server.batcher import Batcher
from server.errors import ModelNotFound, ModelRefused, NotReady
from server.fingerprint import Fingerprint, fingerprint
from server.model import GOLDEN_FILE, MODEL_FILE, Metadata, Model

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
VERSION = re.compile(r"[1-9][0-9]{0,17}")  # fits the wire's int64

UNLOADED = "it was unloaded, and stays so until it is loaded again"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """What each model gets: see the flags of the same names."""

    max_batch: int
    max_queue: int
    intra_op_threads: int


@dataclass(frozen=True, slots=True)
class Served:
    """A version that answers requests."""

    name: str
    version: int
    metadata: Metadata
    batcher: Batcher
    metrics: metrics.ModelMetrics


@dataclass(frozen=True, slots=True)
class Entry:
    """A version that lies in the directory; where `served` is None, `reason` says why."""

    name: str
    version: int
    files: tuple[Fingerprint, Fingerprint] | None  # the model's and its proof's; None: unread
    served: Served | None
    reason: str = ""


Models = dict[str, dict[int, Entry]]  # by name and version


class Repository:
    """All versions of all models under one directory.

    Args:
        directory: holds `<name>/<version>/model.onnx` and `golden.npz` beside it.
        default: the name that requests mean when they name no model.
        limits: what each model gets.
        arrivals: see `Batcher`.
        on_change: called when other versions answer than before.
    """

    def __init__(
        self,
        directory: Path,
        default: str,
        limits: Limits,
        arrivals: Arrivals,
        on_change: Callable[[], None],
    ) -> None:
        self._arrivals = arrivals
        self._directory = directory
        self.limits = limits
        self._on_change = on_change
        self.default = default
        self._unloaded: set[str] = set()
        self._scanning = threading.Lock()
        # Replaced as a whole, never changed, so that readers need no lock.
        self._models: Models | None = None
        self._newest: dict[str, Served] = {}  # of each name the newest version that is ready

    def scan(self) -> None:
        """Loads what is new or has changed in the directory, forgets what is gone."""
        with self._scanning:
            self._scan()

    def load(self, name: str) -> None:
        """Loads a model that was unloaded, or whatever has changed, and returns when it answers.

        Raises:
            ModelNotFound: nothing lies in the directory under that name.
            ModelRefused: no version of it can be served.
        """
        with self._scanning:
            self._unloaded.discard(name)
            self._scan()
        versions = self._versions(name)
        if self.newest(name) is None:
            newest = versions[max(versions)]
            raise ModelRefused(
                f"Model {name!r} cannot be served; its version {newest.version}: {newest.reason}."
            )

    def unload(self, name: str) -> None:
        """Takes all versions of a model out of service; the calls they have are finished.

        Raises:
            ModelNotFound: nothing lies in the directory under that name.
        """
        self._versions(name)
        with self._scanning:
            self._unloaded.add(name)
            self._scan()
        log.info("model unloaded", model=name)

    def _scan(self) -> None:
        before = self._models or {}
        after: Models = {}
        for directory in self._version_directories():
            name, version = directory.parent.name, int(directory.name)
            files = fingerprint(directory / MODEL_FILE), fingerprint(directory / GOLDEN_FILE)
            entry = before.get(name, {}).get(version)
            if name in self._unloaded:
                entry = Entry(name, version, None, None, UNLOADED)
            elif entry is None or entry.files != files:
                # Where the changed files are refused, what was loaded stays.
                served, reason = self._load(directory)
                served = served or (entry.served if entry else None)
                entry = Entry(name, version, files, served, reason)
            after.setdefault(name, {})[version] = entry
        for name, versions in before.items():
            for version in versions.keys() - after.get(name, {}).keys():
                log.info("model removed", model=name, version=version)
        if self._models is not None and after == before:
            return
        _publish(before, ready=False)
        _publish(after, ready=True)
        self._newest = _newest(after)
        self._models = after
        self._on_change()

    def get(self, name: str = "", version: int = 0) -> Served:
        """Returns the version that answers for `name` ("": the default) and `version` (0: newest).

        Raises:
            ModelNotFound: there is no such model or version.
            NotReady: there is, but it is not loaded yet, was refused or was unloaded.
        """
        name = name or self.default
        if not version and (newest := self._newest.get(name)):
            return newest
        versions = self._versions(name)
        if version and version not in versions:
            raise ModelNotFound(
                f"Model {name!r} has no version {version}; it has: "
                f"{', '.join(map(str, sorted(versions)))}.",
                f"{name}/{version}",
            )
        served = versions[version].served if version else None
        if served is None:
            reason = versions[version or max(versions)].reason
            raise NotReady(f"Model {name!r} does not answer: {reason}.")
        return served

    def newest(self, name: str) -> Served | None:
        """Returns the newest version of `name` that is ready, if any is."""
        return self._newest.get(name)

    def entries(self) -> list[Entry]:
        """Returns every version, by name and number."""
        return [
            entry
            for _, versions in sorted((self._models or {}).items())
            for _, entry in sorted(versions.items())
        ]

    def _versions(self, name: str) -> dict[int, Entry]:
        if self._models is None:
            raise NotReady("The models are still being loaded: try again in a moment.")
        versions = self._models.get(name)
        if versions is None:
            raise ModelNotFound(
                f"No model is named {reprlib.repr(name)}; there are: "
                f"{', '.join(self._models) or 'none'}.",
                name,
            )
        return versions

    def _version_directories(self) -> Iterator[Path]:
        for directory in sorted(self._directory.glob("*/*/")):
            if NAME.fullmatch(directory.parent.name) and VERSION.fullmatch(directory.name):
                yield directory

    def _load(self, directory: Path) -> tuple[Served | None, str]:
        """Returns what answers, or why nothing does."""
        name, version = directory.parent.name, int(directory.name)
        try:
            model = Model.load(directory, intra_op_threads=self.limits.intra_op_threads)
        except ModelRefused as error:
            metrics.model_loads.labels(name, "refused").inc()
            log.error("model refused", model=name, version=version, reason=str(error))  # noqa: TRY400 - a sentence, no trace
            return None, f"it was refused, since {error}"
        metadata = model.metadata
        metrics.model_loads.labels(name, "loaded").inc()
        log.info(
            "model loaded",
            model=name,
            version=version,
            test_accuracy=round(metadata.test_accuracy, 4),
            parity_max_abs_logit_diff=f"{metadata.parity_max_abs_logit_diff:.1e}",
        )
        if metadata.dataset != "mnist":
            log.warning(
                "this model was not trained on MNIST: expect less of it on handwritten digits",
                model=name,
                version=version,
                dataset=metadata.dataset,
            )
        counts = metrics.ModelMetrics(name)
        batcher = Batcher(
            model.run, self.limits.max_batch, self.limits.max_queue, counts, self._arrivals
        )
        return Served(name, version, metadata, batcher, counts), ""


def _newest(models: Models) -> dict[str, Served]:
    # By number, so that the last of a name is the newest.
    return {
        name: entry.served
        for name, versions in models.items()
        for _, entry in sorted(versions.items())
        if entry.served
    }


def _publish(models: Models, *, ready: bool) -> None:
    for versions in models.values():
        for entry in versions.values():
            if served := entry.served:
                metrics.answers(served.name, served.version, served.metadata, ready=ready)
