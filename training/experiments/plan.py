"""What is studied, and what it is held against."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Study:
    """A recipe that is trained with several seeds.

    Attributes:
        arch: the architecture's name.
        recipe: the name of one of its recipes.
        seeds: how many, from 0.
        exports: in which forms, "float" and "int8", the seed is exported that did best on
            its validation images.
    """

    arch: str
    recipe: str
    seeds: int = 5
    exports: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The stem of its result's file name."""
        return f"{self.arch}-{self.recipe}"


STUDIES = (
    Study("digitnet", "default", exports=("float", "int8")),
    Study("digitnet", "fast"),
    Study("digitnet-s", "default", exports=("float", "int8")),
    Study("digitnet-l", "default", seeds=3),
    Study("digitnet-xl", "default", seeds=3),
    Study("digitnet-l", "best", seeds=3, exports=("float", "int8")),
    Study("tiny", "default", exports=("float",)),
    Study("tiny", "best"),
    Study("tiny", "ceiling", seeds=3),
    Study("dropout", "default", exports=("float",)),
    Study("dropout", "best"),
    Study("dropout", "ceiling", seeds=3),
    Study("light", "default", exports=("float",)),
    Study("light", "best"),
    Study("light", "ceiling", seeds=3),
    Study("gap", "default", exports=("float",)),
    Study("gap", "best"),
    Study("gap", "ceiling", seeds=3),
)


@dataclass(frozen=True)
class Reference:
    """A figure that a public project states for its own model.

    Attributes:
        said: the figure as it is said.
        accuracy: the fraction of MNIST's test images that it stands for.
        parameters: as many as the model has.
        meaning: what kind of figure it is.
    """

    said: str
    accuracy: float
    parameters: int
    meaning: str


# By architecture: public course projects' figures for the same layers and, in
# recipe "default", the same recipe; each is of one run.
REFERENCES = {
    "tiny": Reference("97.86 %", 0.9786, 52_138, "two epochs of Adam at 1e-3, batches of 64"),
    "dropout": Reference("> 98 %", 0.98, 21_840, "ten epochs of Adam at 1e-3, batches of 100"),
    "light": Reference("99.05 %", 0.9905, 10_758, "ten epochs of Adam at 1e-3, batches of 64"),
    "gap": Reference("97.47 %", 0.9747, 9_032, "one epoch of Adam at 1e-3, batches of 64"),
}

# Course projects' small models, for the scatter plot; each is usually the best
# epoch of one run, chosen on the test images.
OTHERS = (
    Reference("99.43 %", 0.9943, 15_578, "the best epoch on the test images"),
    Reference("99.5 %", 0.995, 8_900, "the best epoch on the test images"),
)
