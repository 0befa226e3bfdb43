"""A recorded step does what the step does, again and again, where there is a CUDA device."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from training import config
from training.checkpoint import Run
from training.data import Split
from training.graphs import WARM_UP, Recorded
from training.train import Trainer, evaluate

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device here"
)


def test_replays_on_new_inputs_of_any_shape() -> None:
    """Each call counts once, with what it was given, whether it runs or is replayed."""
    total = torch.zeros((), device="cuda")

    def add(values: Tensor) -> None:
        total.add_(values.sum())

    recorded, expected = Recorded(add), 0
    for call in range(3 * WARM_UP):
        for count in (2, 5):
            recorded(torch.full((count,), float(call), device="cuda"))
            expected += count * call
    assert total.item() == expected


def test_draws_anew() -> None:
    """Random numbers differ from replay to replay, and come from the seed."""
    drawn = torch.zeros(4, device="cuda")
    seen = []

    def draw(like: Tensor) -> None:
        drawn.copy_(torch.randn_like(like))

    for _ in range(2):
        torch.manual_seed(1)
        recorded = Recorded(draw)
        for _ in range(3 * WARM_UP):
            recorded(drawn)
            seen.append(drawn.tolist())
    once, again = seen[: 3 * WARM_UP], seen[3 * WARM_UP :]
    assert once == again
    assert len({tuple(numbers) for numbers in once}) == len(once)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_training_learns(ema_decay: float) -> None:
    """With its steps recorded, training learns where the ink is, by full batches and by others."""
    cuda = torch.device("cuda")
    labels = torch.randint(10, (1000,), generator=torch.Generator().manual_seed(0)).to(cuda)
    images = torch.zeros(1000, 1, 28, 28, dtype=torch.uint8, device=cuda)
    images[torch.arange(1000), 0, 4 + 2 * labels] = 255
    split = Split(images, labels)
    fast = config.RECIPES["digitnet"]["fast"]
    recipe = replace(fast, epochs=10, shift=0, ema_decay=ema_decay)
    trainer = Trainer(Run("digitnet", "lines", "", recipe, 0), split)
    scores = [trainer.train_epoch(lambda: None) for _ in range(recipe.epochs)]
    assert scores[-1].accuracy > 0.99
    assert evaluate(trainer.candidate, split).accuracy > 0.99
