"""Learning from a larger model, whose doubts say more about an image than its label does."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from training import distributed
from training.errors import TrainingError
from training.parity import logits, open_session

# After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network"
# (2015). Softened this far, a teacher's second and third choices still count.
TEMPERATURE = 2.0
WEIGHT = 0.9  # of the teacher's answers; the labels have the rest


class Teacher:
    """An exported model that answers about the images as they are shown in training.

    Args:
        folder: the exported version, such as `models/digitnet-l/1`.

    Raises:
        TrainingError: if there is no model.
    """

    def __init__(self, folder: Path) -> None:
        self.session = open_session(distributed.from_first(_read, folder))

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


def _read(folder: Path) -> bytes:
    try:
        return (folder / "model.onnx").read_bytes()
    except OSError as error:
        raise TrainingError(
            f"{folder} holds no model to learn from: export one, or choose another --teacher."
        ) from error
