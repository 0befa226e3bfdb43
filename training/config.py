"""The training recipe, and each architecture's own ones."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from click import STRING, Choice, FloatRange, IntRange, ParamType

from training.errors import TrainingError

POSITIVE = FloatRange(min=0, min_open=True)
FROM_ZERO = FloatRange(min=0)
FRACTION = FloatRange(min=0, max=1, max_open=True)
PART = FloatRange(min=0, max=1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything about a training run that can be chosen, but for its seed.

    Each choice's range and meaning stand beside it, once: `choices` turns them
    into the command line's flags.
    """

    epochs: Annotated[int, IntRange(min=1), "Passes over the training images."] = 10
    batch_size: Annotated[int, IntRange(min=1), "Images per step, over all processes."] = 64
    optimizer: Annotated[str, Choice(["adam", "adamw", "sgd"]), "sgd is with Nesterov's 0.9."] = (
        "adam"
    )
    learning_rate: Annotated[float, POSITIVE, "The highest one, where a schedule moves it."] = 1e-3
    weight_decay: Annotated[float, FROM_ZERO, "As the optimizer understands it."] = 0.0
    schedule: Annotated[
        str, Choice(["constant", "one-cycle"]), "Of the learning rate, step by step."
    ] = "constant"
    warmup: Annotated[float, FRACTION, "Part of the one-cycle run in which the rate climbs."] = 0.2
    label_smoothing: Annotated[float, FRACTION, "Probability spread over all ten classes."] = 0.0
    teacher: Annotated[
        str,
        STRING,
        "Exported models to learn from, with commas between; on data that they learned.",
    ] = ""
    teacher_temperature: Annotated[
        float, POSITIVE, "Softens what teachers answer, so that second choices still count."
    ] = 2.0
    teacher_weight: Annotated[
        float, PART, "Part of the loss that is against teachers' answers, not labels."
    ] = 0.9
    ema_decay: Annotated[float, FRACTION, "Of the weights' moving average; 0 for none."] = 0.0
    precision: Annotated[
        str,
        Choice(["float32", "bfloat16"]),
        "Of activations, where a device can; weights are float32.",
    ] = "float32"
    rotation: Annotated[float, FROM_ZERO, "Augmentation: at most so many degrees."] = 0.0
    shear: Annotated[float, FROM_ZERO, "Augmentation: at most so many degrees."] = 0.0
    scale: Annotated[float, FRACTION, "Augmentation: at most this fraction up or down."] = 0.0
    shift: Annotated[float, FROM_ZERO, "Augmentation: at most so many pixels."] = 0.0
    elastic: Annotated[float, FROM_ZERO, "Augmentation: typical displacement in pixels."] = 0.0
    validation: Annotated[
        float, FloatRange(min=0, max=1, min_open=True, max_open=True), "Part held out to choose by."
    ] = 0.05
    monitor: Annotated[
        str, Choice(["accuracy", "none"]), "On those held out; with none the last epoch is kept."
    ] = "accuracy"


def choices() -> dict[str, tuple[ParamType[Any], str]]:
    """Returns each of the recipe's choices with its click type and its meaning."""
    hints: dict[str, Any] = get_type_hints(Recipe, include_extras=True)
    return {field.name: hints[field.name].__metadata__ for field in fields(Recipe)}


GIVEN = Recipe()
OURS = Recipe(
    epochs=40,
    batch_size=128,
    optimizer="adamw",
    learning_rate=1e-2,
    weight_decay=1e-2,
    schedule="one-cycle",
    ema_decay=0.999,
    precision="bfloat16",
    rotation=12,
    shear=8,
    scale=0.12,
    shift=2,
    elastic=0.5,
)

# Where a run ends in tiny steps, the last epoch is what all led to; which is best on three
# thousand images is mostly luck.
OURS_XL = replace(OURS, epochs=24, batch_size=256, learning_rate=4e-3, monitor="none")
# The folder of the networks that learned by the recipe above: `make teachers`.
TEACHERS = Path("runs/teachers")
# Patient: the answers of several networks hold more than a few epochs bring out of them.
TAUGHT_L = replace(
    OURS,
    epochs=60,
    teacher=",".join(f"{TEACHERS}/digitnet-xl/{version}" for version in (1, 2, 3)),
    teacher_temperature=4,
    teacher_weight=1,
    monitor="none",
)
# A digitnet-l that learned without teachers teaches the smaller ones.
TAUGHT = replace(OURS, epochs=20, teacher="models/digitnet-l/1")
# Gentler than ours, for small networks, three of them without batch norm. With images
# bent as far as ours, light ended lower after ten epochs; that was one run.
BEST = replace(
    OURS,
    epochs=20,
    learning_rate=3e-3,
    rotation=6,
    shear=4,
    scale=0.06,
    shift=0.5,
    elastic=0.3,
)
CEILING = replace(BEST, teacher=TAUGHT.teacher)
FAST = replace(OURS, epochs=2, ema_decay=0.98, rotation=0, shear=0, scale=0, elastic=0, shift=1)

# By architecture and name. Each architecture has a "default"; the zoo's are as
# their references have them, "best" is better on the same layers, and "ceiling" the
# most that we got out of them.
RECIPES: dict[str, dict[str, Recipe]] = {
    "digitnet": {"default": TAUGHT, "fast": FAST},
    "digitnet-s": {"default": TAUGHT},
    "digitnet-l": {"default": OURS, "best": TAUGHT_L},
    "digitnet-xl": {"default": OURS_XL},
    "tiny": {"default": replace(GIVEN, epochs=2), "best": BEST, "ceiling": CEILING},
    "dropout": {"default": replace(GIVEN, batch_size=100), "best": BEST, "ceiling": CEILING},
    "light": {"default": GIVEN, "best": BEST, "ceiling": CEILING},
    "gap": {"default": replace(GIVEN, epochs=1), "best": BEST, "ceiling": CEILING},
}


def recipe_named(arch: str, name: str) -> Recipe:
    """Returns an architecture's recipe by its name.

    Raises:
        TrainingError: if the architecture has none of that name.
    """
    if name not in RECIPES[arch]:
        raise TrainingError(
            f"{arch} has no recipe {name!r}: choose {' or '.join(map(repr, RECIPES[arch]))}."
        )
    return RECIPES[arch][name]
