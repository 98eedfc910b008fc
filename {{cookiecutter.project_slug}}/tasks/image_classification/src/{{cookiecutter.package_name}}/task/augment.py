"""Augmentations: modules that change a batch of model inputs, applied in training alone."""

import torch
from torch import Tensor, nn


class RandomShift(nn.Module):
    """Moves each picture by up to `size` pixels each way; what enters is empty (0)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        image = inputs["image"]
        n, _, height, width = image.shape
        padded = nn.functional.pad(image, [self.size] * 4)
        offsets = torch.randint(0, 2 * self.size + 1, (2, n, 1), device=image.device)
        rows = offsets[0] + torch.arange(height, device=image.device)
        columns = offsets[1] + torch.arange(width, device=image.device)
        batch = torch.arange(n, device=image.device)[:, None, None]
        # Advanced indexing puts the channels last: [n, H, W, C].
        return {
            "image": padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        }
