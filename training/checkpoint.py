"""What a run leaves on disk after each epoch: all that it takes to go on, or to export."""

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import Recipe
from training.errors import TrainingError
from training.files import atomic
from training.models import ARCHITECTURES

FILE_NAME = "checkpoint.pt"


@dataclass(frozen=True)
class Run:
    """What a training run is: the same from its first step to its last.

    Attributes:
        arch: the architecture's name.
        dataset: the data set's name.
        dataset_sha256: the hash of the data set's files.
        recipe: every choice but the seed.
        seed: of the weights, the order and the augmentation.
        teacher_sha256: the hashes of teachers' files, with commas between them; empty where
            nobody teaches.
    """

    arch: str
    dataset: str
    dataset_sha256: str
    recipe: Recipe
    seed: int
    teacher_sha256: str = ""


@dataclass(frozen=True)
class Score:
    """How well a model does on a set of images.

    Attributes:
        loss: mean cross-entropy, in nats.
        accuracy: fraction of the images whose most probable digit is right.
    """

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Epoch:
    """One row of the history.

    Attributes:
        epoch: its number, from 1.
        learning_rate: at its end.
        train: on the augmented training images, in training mode, as the weights moved.
        validation: on the images held out, in evaluation mode, by the weights
            that would be kept: their moving average where there is one.
        seconds: what training and validation took.
    """

    epoch: int
    learning_rate: float
    train: Score
    validation: Score
    seconds: float


@dataclass(kw_only=True)
class Checkpoint:
    """A run after some epoch.

    Attributes:
        run: what is trained.
        git_commit: the training code's.
        history: the epochs so far.
        best_epoch: the one with the best validation accuracy so far, or the last if the
            recipe monitors none.
        best_weights: the model's state after that epoch.
        state: what training needs to go on as though it had never stopped.
        temperature: by which the best weights' logits were divided when the run was finished.
        test: on the test images, by the best weights; only a finished run has it.
    """

    run: Run
    git_commit: str
    history: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    test: Score | None = None

    def add(self, epoch: Epoch, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Takes in one more epoch; of equally accurate ones, the later is the best.

        Args:
            epoch: its row of the history.
            weights: the state of the model that would be kept.
            state: what training needs to go on.
        """
        best = max((past.validation.accuracy for past in self.history), default=0.0)
        if self.run.recipe.monitor == "none" or epoch.validation.accuracy >= best:
            self.best_epoch = epoch.epoch
            self.best_weights = {name: value.clone() for name, value in weights.items()}
        self.history.append(epoch)
        self.state = state

    def best_model(self) -> nn.Sequential:
        """Returns the model with its best weights, on the CPU, in evaluation mode."""
        model = ARCHITECTURES[self.run.arch]()
        model.load_state_dict(self.best_weights)
        return model.eval()

    def save(self, folder: Path) -> None:
        """Writes the checkpoint into a run's folder, in place of the one before.

        Raises:
            TrainingError: if the folder cannot be written.
        """
        content = vars(self) | {
            "run": asdict(self.run),
            "history": [asdict(epoch) for epoch in self.history],
            "test": self.test and asdict(self.test),
        }
        with atomic(folder / FILE_NAME) as temporary:
            torch.save(content, temporary)

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint":
        """Reads a run's checkpoint, its tensors on the CPU.

        Raises:
            TrainingError: if there is none, or it cannot be read.
        """
        path = folder / FILE_NAME
        if not path.exists():
            raise TrainingError(
                f"{folder} holds no checkpoint: train first (`make train ARCH={folder.name}`)."
            )
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            run, test = content.pop("run"), content.pop("test")
            return cls(
                **content
                | {
                    "run": Run(**run | {"recipe": Recipe(**run["recipe"])}),
                    "history": [_epoch(**epoch) for epoch in content["history"]],
                    "test": test and Score(**test),
                }
            )
        except (
            OSError,
            RuntimeError,
            EOFError,
            pickle.UnpicklingError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise TrainingError(
                f"{path} is damaged, or of another version of this code: run `make train` again."
            ) from error


def _epoch(*, train: dict[str, float], validation: dict[str, float], **rest: Any) -> Epoch:
    return Epoch(train=Score(**train), validation=Score(**validation), **rest)
