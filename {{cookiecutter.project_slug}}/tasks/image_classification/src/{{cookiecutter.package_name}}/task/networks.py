"""Networks: `forward` takes the model inputs by name and gives raw outputs [n, k] and an embedding
[n, e].
"""

from pathlib import Path

from torch import Tensor, nn


class Cnn(nn.Module):
    """Three convolutions and two linear layers, for small pictures [n, channels, H, W] with values
    from 0 to 255.
    """

    def __init__(
        self,
        num_outputs: int,
        channels: int,
        width: int,
        dropout: float,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *self._block(channels, width),
            *self._block(width, 2 * width),
            nn.MaxPool2d(2),
            *self._block(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
        self.embed = nn.Sequential(nn.Linear(32 * width, 2 * width), nn.ReLU())
        self.head = nn.Linear(2 * width, num_outputs)
        if weights is not None:
            load_matching(self, Path(weights))

    @staticmethod
    def _block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(self.features(image / 255))
        return self.head(embedding), embedding


def load_matching(network: nn.Module, path: Path) -> None:
    """Starts from local safetensors weights; tensors of another shape (the head of another label
    set) stay fresh.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(
            f"no weights at {path}: put a .safetensors file there or set model.weights=null"
        )
    own = network.state_dict()
    matching = {k: v for k, v in load_file(path).items() if k in own and own[k].shape == v.shape}
    if not matching:
        raise ValueError(
            f"{path} holds no tensor that fits this network: these are weights of another one"
        )
    network.load_state_dict(matching, strict=False)
