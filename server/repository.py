"""The models that are served: what lies in `models/<name>/<version>/`, loaded and proved.

The directory may change while it is served. A new version answers once it has
proved itself; one that is refused changes nothing; one that is removed takes no
more calls, while those it has are finished.
"""

import re
from collections.abc import Iterator
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


@dataclass(frozen=True, slots=True)
class Entry:
    """A version that lies in the directory; `served` is None where it was refused."""

    name: str
    version: int
    files: tuple[Fingerprint, Fingerprint]  # the model's and its proof's
    served: Served | None


Models = dict[str, dict[int, Entry]]  # by name and version


class Repository:
    """All versions of all models under one directory.

    Args:
        directory: holds `<name>/<version>/model.onnx` and `golden.npz` beside it.
        default: the name that requests mean when they name no model.
        limits: what each model gets.
    """

    def __init__(self, directory: Path, default: str, limits: Limits, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._directory = directory
        self._limits = limits
        self.default = default
        # Replaced as a whole, never changed, so that readers need no lock.
        self._models: Models | None = None
        self._newest: dict[str, Served] = {}  # of each name the newest version that is ready

    def scan(self) -> bool:
        """Loads what is new or has changed in the directory, forgets what is gone.

        To be called by one thread at a time.

        Returns:
            whether anything is different from the last scan.
        """
        before = self._models or {}
        after: Models = {}
        for directory in self._version_directories():
            name, version = directory.parent.name, int(directory.name)
            files = fingerprint(directory / MODEL_FILE), fingerprint(directory / GOLDEN_FILE)
            entry = before.get(name, {}).get(version)
            if entry is None or entry.files != files:
                # Where the changed files are refused, what was loaded stays.
                served = self._load(directory) or (entry.served if entry else None)
                entry = Entry(name, version, files, served)
            after.setdefault(name, {})[version] = entry
        for name, versions in before.items():
            for version in versions.keys() - after.get(name, {}).keys():
                log.info("model removed", model=name, version=version)
        if self._models is not None and after == before:
            return False
        _publish(before, ready=False)
        _publish(after, ready=True)
        self._newest = _newest(after)
        self._models = after
        return True

    def get(self, name: str = "", version: int = 0) -> Served:
        """Returns the version that answers for `name` ("": the default) and `version` (0: newest).

        Raises:
            ModelNotFound: there is no such model or version.
            NotReady: there is, but it is not loaded yet, or was refused.
        """
        name = name or self.default
        if not version and (newest := self._newest.get(name)):
            return newest
        if self._models is None:
            raise NotReady("The models are still being loaded: try again in a moment.")
        versions = self._models.get(name)
        if versions is None:
            raise ModelNotFound(
                f"No model is named {name!r}; there are: {', '.join(self._models) or 'none'}."
            )
        if version and version not in versions:
            raise ModelNotFound(
                f"Model {name!r} has no version {version}; it has: "
                f"{', '.join(map(str, sorted(versions)))}."
            )
        served = versions[version].served if version else None
        if served is None:
            raise NotReady(f"Model {name!r} was refused at loading: the server's log says why.")
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

    def _version_directories(self) -> Iterator[Path]:
        for directory in sorted(self._directory.glob("*/*/")):
            if NAME.fullmatch(directory.parent.name) and VERSION.fullmatch(directory.name):
                yield directory

    def _load(self, directory: Path) -> Served | None:
        name, version = directory.parent.name, int(directory.name)
        try:
            model = Model.load(directory, intra_op_threads=self._limits.intra_op_threads)
        except ModelRefused as error:
            metrics.model_loads.labels(name, "refused").inc()
            log.error("model refused", model=name, version=version, reason=str(error))  # noqa: TRY400 - a sentence, no trace
            return None
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
        batcher = Batcher(
            model.run,
            self._limits.max_batch,
            self._limits.max_queue,
            metrics.ModelMetrics(name),
            self._arrivals,
        )
        return Served(name, version, metadata, batcher)


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
