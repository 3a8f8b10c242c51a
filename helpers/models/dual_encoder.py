"""Contrastive losses between matching rows of image and text embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(image: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric InfoNCE: each picture must find its caption among the batch's, and each caption its picture.

    image, text (B, E), row b of one matching row b of the other, of any length (they are normalised here); logit_scale is
    the inverse temperature, a scalar. Radford et al., "Learning Transferable Visual Models From Natural Language
    Supervision", 2021 (arXiv 2103.00020), figure 3.
    """
    logits = logit_scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T  # (B, B)
    matching = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, matching) + F.cross_entropy(logits.T, matching)) / 2
