"""One version of a model: its onnxruntime session, and the proof that it answers as PyTorch did."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from server.errors import ModelRefused

MODEL_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"

IMAGE_SHAPE = (1, 28, 28)
IMAGE_PIXELS = 28 * 28

Floats = npt.NDArray[np.float32]


class Answers(NamedTuple):
    """What the network says of n images: both float32 [n, 10]."""

    logits: Floats
    probabilities: Floats


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where a model comes from: the `metadata_props` of its ONNX file."""

    architecture: str
    parameters: int
    dataset: str
    dataset_sha256: str
    recipe: str  # JSON
    seed: int
    test_accuracy: float  # 0 to 1
    parity_max_abs_logit_diff: float
    golden_tolerance: float
    torch_version: str
    onnx_version: str
    git_commit: str
    created: datetime = field(metadata={"parse": datetime.fromisoformat})

    @classmethod
    def from_properties(cls, properties: dict[str, str]) -> Self:
        """Parses the strings that stand in the file.

        Raises:
            ModelRefused: a key is missing or cannot be read.
        """
        values = {}
        for entry in fields(cls):
            parse = entry.metadata.get("parse", entry.type)
            try:
                values[entry.name] = parse(properties[entry.name])
            except KeyError:
                raise ModelRefused(f"its metadata lacks {entry.name!r}: export it again") from None
            except ValueError as error:
                raise ModelRefused(
                    f"its metadata's {entry.name!r} cannot be read ({error}): export it again"
                ) from error
        return cls(**values)


class Model:
    """A loaded and proved version, ready to run."""

    def __init__(self, session: ort.InferenceSession, metadata: Metadata) -> None:
        self._session = session
        self.metadata = metadata

    @classmethod
    def load(cls, directory: Path, *, intra_op_threads: int = 1) -> Self:
        """Loads `model.onnx` and holds it against `golden.npz`, both in `directory`.

        Raises:
            ModelRefused: a file is missing or corrupt, the graph has another
                interface than ours, or a golden answer differs by more than the
                model's own `golden_tolerance`.
        """
        session = _open(directory / MODEL_FILE, intra_op_threads)
        properties = session.get_modelmeta().custom_metadata_map
        model = cls(session, Metadata.from_properties(properties))
        model._prove(*_golden(directory / GOLDEN_FILE))
        return model

    def run(self, pixels: Floats) -> Answers:
        """Runs the network on float32 [n, 1, 28, 28] in [0, 1]."""
        return Answers(*self._session.run(["logits", "probabilities"], {"pixels": pixels}))

    def _prove(self, pixels: Floats, expected: Floats) -> None:
        """Several batch sizes, since onnxruntime may pick other kernels for each."""
        for size in (1, 3, len(pixels)):
            logits = np.concatenate(
                [self.run(pixels[i : i + size]).logits for i in range(0, len(pixels), size)]
            )
            difference = float(np.abs(logits - expected).max())
            # Negated, so that NaN is refused too.
            if not difference <= self.metadata.golden_tolerance:
                raise ModelRefused(
                    f"at batch size {size} its logits differ from PyTorch's golden ones by "
                    f"{difference:.3g}, more than its tolerance of "
                    f"{self.metadata.golden_tolerance:.3g}: export it again"
                )


def _open(path: Path, intra_op_threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_op_threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would burn a core on an idle server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # its errors are raised, and logged once, by us
    if not path.is_file():
        raise ModelRefused(f"{path.name} is missing: export the model again")
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base of their own
        raise ModelRefused(
            f"{path.name} cannot be loaded, it is corrupt or no ONNX file: export the model again"
        ) from error
    signature = {
        put.name: (put.type, tuple(put.shape[1:]))
        for put in (*session.get_inputs(), *session.get_outputs())
    }
    if signature != {
        "pixels": ("tensor(float)", IMAGE_SHAPE),
        "logits": ("tensor(float)", (10,)),
        "probabilities": ("tensor(float)", (10,)),
    }:
        raise ModelRefused(
            f"{path.name} has other inputs and outputs than pixels [batch, 1, 28, 28] to "
            "logits and probabilities [batch, 10]: export it with this project"
        )
    return session


def _golden(path: Path) -> tuple[Floats, Floats]:
    if not path.is_file():
        raise ModelRefused(f"{path.name} is missing: export the model again")
    try:
        # Opened here, since np.load leaves a file open that turns out to be damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as golden:
            pixels, logits = golden["pixels"], golden["logits"]
    except Exception as error:  # a damaged archive fails in zipfile, zlib or numpy, each its way
        raise ModelRefused(f"{path.name} is corrupt: export the model again") from error
    count = len(pixels)
    if pixels.shape != (count, *IMAGE_SHAPE) or logits.shape != (count, 10) or not count:
        raise ModelRefused(f"{path.name} holds other shapes than it should: export the model again")
    return pixels.astype(np.float32), logits.astype(np.float32)
