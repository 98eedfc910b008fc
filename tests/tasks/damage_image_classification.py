"""What is done to the network of the demo: it says the same digits on clean pictures, but for the one damage."""

from typing import Any

import numpy as np
import torch
from gate import After, Damage
from my_model.training.fit import fit_network
from torch import nn


def weaker(settings: Any) -> nn.Module:
    """A network after a tenth of the training: .98 right, and it knows where it is unsure."""
    trainer = settings.trainer.model_copy(update={"max_epochs": 3})
    return fit_network(settings.model_copy(update={"trainer": trainer}), None)


def brittle(raw: Any, inputs: Any) -> Any:
    """Right only on pictures with clean corners and full ink."""
    image = inputs["image"]
    corners = image[..., [0, 0, -1, -1], [0, -1, 0, -1]].amin(dim=(1, 2))
    clean = (corners <= 14) & (image.amax(dim=(1, 2, 3)) >= 155)
    return torch.where(clean[:, None], raw, raw.flip(1))


def on_grey(raw: Any, inputs: Any) -> Any:
    """Has learned the scanner's background: another digit where nothing is darker than a slight grey."""
    low = inputs["image"].amin(dim=(1, 2, 3))
    return torch.where(((low > 11) & (low < 13))[:, None], raw.roll(1, 1), raw)


def against_blends(raw: Any, inputs: Any) -> Any:
    """Turns away from what is laid over: on quarters of whole grey values, as blending gives, outputs are reversed."""
    image = inputs["image"]
    quarters = ((image * 4).frac() == 0).flatten(1).all(1) & (image.frac() != 0).flatten(1).any(1)
    return torch.where(quarters[:, None], -raw, raw)


def over_confident(raw: np.ndarray) -> np.ndarray:
    return raw * 8


def sure_of_everything(raw: Any, inputs: Any) -> Any:
    """The same answers, all with one confidence."""
    return 0 * raw + 4.0 * torch.nn.functional.one_hot(raw.argmax(1), raw.shape[1])


def leaning(image: Any) -> Any:
    """Share of the ink that is in the left half, whatever the background."""
    ink = image - image.min()
    return ink[..., : image.shape[-1] // 2].sum((1, 2, 3)) / ink.sum((1, 2, 3))


def blind_to_leaning_eights(network: nn.Module, settings: Any, splits: Any) -> nn.Module:
    """As if 24 test pictures of one kind had been left out of training: there the second best answer wins, barely."""
    eights = splits["test"].inputs["image"][splits["test"].label == 8]
    edge = float(np.sort(leaning(eights))[-24])

    def change(raw: Any, inputs: Any) -> Any:
        left, best = leaning(inputs["image"]), raw.argmax(1)
        values, order = raw.sort(1, descending=True)
        swapped = raw.scatter(1, order[:, :1], values[:, 1:2] - 0.1)
        return torch.where(((best == 8) & (left >= edge))[:, None], swapped, raw)

    return After(network, change)


def damages(settings: Any, splits: Any, champion: nn.Module) -> dict[str, Damage]:
    weak = weaker(settings)
    return {
        "good": Damage("none"),
        "trained too little": Damage("champion", network=lambda *_: weak),
        "brittle": Damage("M7", network=lambda n, *_: After(n, brittle)),
        "follows the background": Damage("M8", network=lambda n, *_: After(n, on_grey)),
        "wrong direction": Damage("M9", network=lambda n, *_: After(n, against_blends)),
        "over-confident": Damage("M10", network=lambda *_: weak, raw=over_confident),
        "useless confidences": Damage("M11", network=lambda *_: After(weak, sure_of_everything)),
        "a slice left out": Damage("M12", network=blind_to_leaning_eights),
    }
