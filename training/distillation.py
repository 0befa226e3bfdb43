"""Learning from a larger model, whose doubts say more about an image than its label does."""

from pathlib import Path

import torch
from onnxruntime import InferenceSession
from torch import Tensor
from torch.nn.functional import cross_entropy

from training import distributed
from training.checkpoint import Run
from training.export import MODEL_FILE, identify
from training.parity import logits, open_session

# After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network"
# (2015). Softened this far, a teacher's second and third choices still count.
TEMPERATURE = 2.0
WEIGHT = 0.9  # of the teacher's answers; the labels have the rest


def teacher_of(run: Run) -> "Teacher | None":
    """Returns the recipe's teacher; None where it has none, or one that learned other data.

    Of images unlike its own a teacher knows less than their labels say: MNIST's
    digitnet-l would cost a model of the embedded digits about three points.

    Raises:
        TrainingError: if there is no such model.
    """
    if not run.recipe.teacher:
        return None
    content, learned = distributed.from_first(_read, Path(run.recipe.teacher))
    return Teacher(open_session(content)) if learned == run.dataset_sha256 else None


class Teacher:
    """An exported model that answers about the images as they are shown in training.

    Args:
        session: onnxruntime's, of the model.
    """

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def loss(self, answered: Tensor, images: Tensor, of_labels: Tensor) -> Tensor:
        """Returns the loss against the teacher's answers and, in part, against the labels.

        Args:
            answered: the student's logits [n, 10].
            images: what it was shown, [n, 1, 28, 28] in [0, 1].
            of_labels: its loss against the labels.
        """
        taught = torch.from_numpy(logits(self.session, images.numpy(force=True)))
        wanted = (taught.to(answered.device) / TEMPERATURE).softmax(1)
        # Gradients shrink with the temperature's square.
        of_answers = cross_entropy(answered / TEMPERATURE, wanted) * TEMPERATURE**2
        return of_labels.lerp(of_answers, WEIGHT)


def _read(folder: Path) -> tuple[bytes, str]:
    """Returns a version's file, and the hash of the data set that it learned."""
    learned = identify(folder)["metadata"]["dataset_sha256"]
    return (folder / MODEL_FILE).read_bytes(), learned
