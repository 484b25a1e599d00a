"""Which tokens a training step sees: a pure function of seed and step, so the step number is all there is to resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

Tokens: TypeAlias = NDArray[np.uint16]
Batch: TypeAlias = NDArray[np.int64]


class Windows:
    """Every run of `length` tokens that lies within one of several token arrays, by number."""

    def __init__(self, arrays: Sequence[Tokens], length: int) -> None:
        self.length = length
        self._arrays = [array for array in arrays if len(array) >= length]
        if not self._arrays:
            raise SpecError(
                f"no file of the dataset has {length} tokens in a row: "
                f"give a context under {max(map(len, arrays), default=0)}, or a larger dataset"
            )
        self._ends = np.cumsum([len(array) - length + 1 for array in self._arrays])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, numbers: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Return the windows with these numbers, (len(numbers), length)."""
        return np.stack([self._window(int(number)) for number in numbers]).astype(np.int64)

    def draw(self, *, seed: int, step: int, size: int) -> Batch:
        """Return the batch of `step`, (size, length); the same for the same arguments, whatever was drawn before.

        Source of the generator: Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011.
        """
        generator = np.random.Generator(np.random.Philox(key=[seed, step]))
        return self.take(generator.integers(len(self), size=size))

    def spread(self, count: int) -> Batch:
        """Return `count` windows, (count, length), evenly over all; fewer where there are not so many."""
        return self.take(np.linspace(0, len(self) - 1, min(count, len(self)), dtype=np.int64))

    def _window(self, number: int) -> Tokens:
        index = int(np.searchsorted(self._ends, number, side="right"))
        array = self._arrays[index]
        start = number - int(self._ends[index]) + len(array) - self.length + 1
        return array[start : start + self.length]
