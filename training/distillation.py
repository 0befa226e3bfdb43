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


def teacher_sha256(folder: str, dataset_sha256: str) -> str:
    """Returns the hash of a teacher's file; nothing where it learned other data, or is not named.

    Of images unlike its own a teacher knows less than their labels say: MNIST's
    digitnet-l would cost a model of the embedded digits about three points.

    Args:
        folder: the exported version, such as "models/digitnet-l/1", or nothing.
        dataset_sha256: the hash of the data set that is to be learned.

    Raises:
        TrainingError: if there is no such model.
    """
    if not folder:
        return ""
    teacher = identify(Path(folder))
    learned = teacher["metadata"]["dataset_sha256"]
    return str(teacher["sha256"]) if learned == dataset_sha256 else ""


def teacher_of(run: Run) -> "Teacher | None":
    """Returns who teaches a run, if anyone does."""
    if not run.teacher_sha256:
        return None
    file = Path(run.recipe.teacher) / MODEL_FILE
    return Teacher(open_session(distributed.from_first(file.read_bytes)))


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
