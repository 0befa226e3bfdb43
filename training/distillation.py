"""Learning from larger models, whose doubts say more about an image than its label does."""

from collections.abc import Sequence
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


def teacher_sha256(teachers: str, dataset_sha256: str) -> str:
    """Returns the hashes of teachers' files; nothing where one of them learned other data.

    Of images unlike its own a teacher knows less than their labels say: MNIST's
    digitnet-l would cost a model of the embedded digits about three points.

    Args:
        teachers: exported versions' folders, with commas between them; nothing for no teacher.
        dataset_sha256: the hash of the data set that is to be learned.

    Returns:
        the hashes, with commas between them; nothing where there is no teacher.

    Raises:
        TrainingError: if one of them is missing, or in int8.
    """
    for folder in folders(teachers):
        if not folder.exists():
            raise TrainingError(
                f"The teacher {folder} is not there: export it first; `make teachers` does so for "
                "digitnet-l's recipe 'best'."
            )
    versions = [identify(folder) for folder in folders(teachers)]
    for folder, version in zip(folders(teachers), versions, strict=True):
        if "quantization" in version["metadata"]:
            raise TrainingError(f"{folder} is in int8: name the same version in float as teacher.")
    if any(version["metadata"]["dataset_sha256"] != dataset_sha256 for version in versions):
        return ""
    return ",".join(version["sha256"] for version in versions)


def folders(teachers: str) -> list[Path]:
    """Returns the folders of a recipe's teachers."""
    return [Path(name) for name in teachers.split(",") if name]


def teacher_of(run: Run, device: torch.device) -> "Teacher | None":
    """Returns who teaches a run, if anyone does, on the device that it trains on."""
    if not run.teacher_sha256:
        return None
    files = [folder / MODEL_FILE for folder in folders(run.recipe.teacher)]
    contents = [distributed.from_first(file.read_bytes) for file in files]
    models = [from_onnx(onnx.load_from_string(content)).to(device) for content in contents]
    return Teacher([channels_last(model) for model in models], run.recipe)


class Teacher:
    """Exported models that answer together about the images as they are shown in training.

    After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).

    Args:
        models: from pixels to logits, in evaluation mode.
        recipe: says how soft their answers are, and what they weigh.
    """

    def __init__(self, models: Sequence[nn.Module], recipe: Recipe) -> None:
        self.models = models
        self.temperature = recipe.teacher_temperature
        self.weight = recipe.teacher_weight

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Returns softened probabilities [n, 10] for images [n, 1, 28, 28] in [0, 1]."""
        answers = [(model(images).float() / self.temperature).softmax(1) for model in self.models]
        return torch.stack(answers).mean(0)

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
