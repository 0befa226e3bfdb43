"""The models that are served: what lies in `models/<name>/<version>/`, loaded and proved."""

import re
from dataclasses import dataclass
from pathlib import Path

import structlog

from server.batcher import Batcher
from server.errors import ModelNotFound, ModelRefused, NotReady
from server.model import Metadata, Model

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
class Listed:
    """A version that lies in the repository; `served` is None where it was refused."""

    name: str
    version: int
    served: Served | None


class Repository:
    """All versions of all models under one directory.

    Args:
        directory: holds `<name>/<version>/model.onnx` and `golden.npz` beside it.
        default: the name that requests mean when they name no model.
        limits: what each model gets.
    """

    def __init__(self, directory: Path, default: str, limits: Limits) -> None:
        self._directory = directory
        self._limits = limits
        self.default = default
        # Replaced as a whole, never changed: readers need no lock.
        self._versions: dict[str, dict[int, Served | None]] | None = None

    def load(self) -> None:
        """Loads every version; one that is refused is logged and listed as not ready."""
        versions: dict[str, dict[int, Served | None]] = {}
        for directory in sorted(self._directory.glob("*/*/")):
            name, version = directory.parent.name, directory.name
            if NAME.fullmatch(name) and VERSION.fullmatch(version):
                versions.setdefault(name, {})[int(version)] = self._load(directory)
        self._versions = versions

    def get(self, name: str = "", version: int = 0) -> Served:
        """Returns the version that answers for `name` ("": the default) and `version` (0: newest).

        Raises:
            ModelNotFound: there is no such model or version.
            NotReady: there is, but it is not loaded, or was refused.
        """
        if self._versions is None:
            raise NotReady("The models are still being loaded: try again in a moment.")
        name = name or self.default
        versions = self._versions.get(name)
        if versions is None:
            raise ModelNotFound(
                f"No model is named {name!r}; there are: {', '.join(self._versions) or 'none'}."
            )
        if version and version not in versions:
            raise ModelNotFound(
                f"Model {name!r} has no version {version}; it has: "
                f"{', '.join(map(str, sorted(versions)))}."
            )
        served = versions[version] if version else self.newest(name)
        if served is None:
            raise NotReady(f"Model {name!r} was refused at loading: the server's log says why.")
        return served

    def newest(self, name: str) -> Served | None:
        """Returns the newest version of `name` that is ready, if any is."""
        versions = (self._versions or {}).get(name, {})
        return max(filter(None, versions.values()), key=_by_version, default=None)

    def listing(self) -> list[Listed]:
        """Returns every version, by name and number."""
        return [
            Listed(name, version, served)
            for name, versions in sorted((self._versions or {}).items())
            for version, served in sorted(versions.items())
        ]

    def _load(self, directory: Path) -> Served | None:
        name, version = directory.parent.name, int(directory.name)
        try:
            model = Model.load(directory, intra_op_threads=self._limits.intra_op_threads)
        except ModelRefused as error:
            log.error("model refused", model=name, version=version, reason=str(error))  # noqa: TRY400 - a sentence, no trace
            return None
        metadata = model.metadata
        log.info(
            "model loaded",
            model=name,
            version=version,
            test_accuracy=metadata.test_accuracy,
            parity_max_abs_logit_diff=metadata.parity_max_abs_logit_diff,
        )
        if metadata.dataset != "mnist":
            log.warning(
                "this model was not trained on MNIST: expect less of it on handwritten digits",
                model=name,
                version=version,
                dataset=metadata.dataset,
            )
        batcher = Batcher(model.run, self._limits.max_batch, self._limits.max_queue)
        return Served(name, version, metadata, batcher)


def _by_version(served: Served) -> int:
    return served.version
