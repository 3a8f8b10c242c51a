"""From a picture to pixels, in two halves: what Pillow does, and what torch does."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor
    from torchvision.transforms import Compose


class Preprocessed:
    """An encoder's `preprocess`, torchvision transforms of which the last two make a tensor and normalise it.

    In two halves: Pillow resizes beside the interpreter, in threads; each thread of torch's would start threads of its own.
    """

    preprocess: Compose

    def pixels(self, image: Image.Image) -> Tensor:
        """One RGB picture as the encoder wants it. (3, R, R)

        The same for training, validation and inference; what training alone does (mirroring) comes after it.
        """
        return self.normalise(self.crop(image))

    def crop(self, image: Image.Image) -> Image.Image:
        """The first half, which Pillow does: R x R, the square in the middle, as the encoder sees it."""
        return reduce(lambda picture, step: step(picture), self.preprocess.transforms[:-2], image)

    def normalise(self, square: Image.Image) -> Tensor:
        """The second half, which torch does. (3, R, R)"""
        to_tensor, normalise = self.preprocess.transforms[-2:]
        return normalise(to_tensor(square))
