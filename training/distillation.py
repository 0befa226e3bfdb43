"""Learning from a larger model, whose doubts say more about an image than its label does."""

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training import distributed
from training.checkpoint import Run
from training.config import Recipe
from training.errors import TrainingError
from training.export import MODEL_FILE, identify
from training.models import channels_last
from training.onnx_graph import from_onnx


def teacher_sha256(folder: str, dataset_sha256: str) -> str:
    """Returns the hash of a teacher's file; nothing where it learned other data, or is not named.

    Of images unlike its own a teacher knows less than their labels say: MNIST's
    digitnet-l would cost a model of the embedded digits about three points.

    Args:
        folder: the exported version, such as "models/digitnet-l/1", or nothing.
        dataset_sha256: the hash of the data set that is to be learned.

    Raises:
        TrainingError: if there is no such model, or it is in int8.
    """
    if not folder:
        return ""
    teacher = identify(Path(folder))
    if "quantization" in teacher["metadata"]:
        raise TrainingError(f"{folder} is in int8: name the same version in float as teacher.")
    learned = teacher["metadata"]["dataset_sha256"]
    return str(teacher["sha256"]) if learned == dataset_sha256 else ""


def teacher_of(run: Run, device: torch.device) -> "Teacher | None":
    """Returns who teaches a run, if anyone does, on the device that it trains on."""
    if not run.teacher_sha256:
        return None
    file = Path(run.recipe.teacher) / MODEL_FILE
    model = from_onnx(onnx.load_from_string(distributed.from_first(file.read_bytes)))
    return Teacher(channels_last(model.to(device)), run.recipe)


class Teacher:
    """An exported model that answers about the images as they are shown in training.

    After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).

    Args:
        model: from pixels to logits, in evaluation mode.
        recipe: says how soft its answers are, and what they weigh.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.model = model
        self.temperature = recipe.teacher_temperature
        self.weight = recipe.teacher_weight

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Returns softened probabilities [n, 10] for images [n, 1, 28, 28] in [0, 1]."""
        logits: Tensor = self.model(images).float()
        return (logits / self.temperature).softmax(1)

    def loss(self, answered: Tensor, wanted: Tensor, of_labels: Tensor) -> Tensor:
        """Returns the loss against the teacher's answers and, in part, against the labels.

        Args:
            answered: the student's logits [n, 10].
            wanted: what its teacher answered, [n, 10].
            of_labels: the student's loss against the labels.
        """
        # Gradients shrink with the temperature's square.
        of_answers = cross_entropy(answered / self.temperature, wanted) * self.temperature**2
        return of_labels.lerp(of_answers, self.weight)
