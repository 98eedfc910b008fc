from pathlib import Path

import pytest
import torch
from harness import module
from safetensors.torch import save_file

networks = module("task.networks")


def cnn(classes: int, weights: Path | None = None, width: int = 8) -> torch.nn.Module:
    made = networks.Cnn(
        classes, channels=1, width=width, dropout=0.0, weights=str(weights) if weights else None
    )
    assert isinstance(made, torch.nn.Module)
    return made


@pytest.mark.parametrize("side", [8, 28, 64])
def test_any_picture_size_gives_logits_and_an_embedding(side: int) -> None:
    logits, embedding = cnn(5).eval()(torch.zeros(3, 1, side, side))
    assert logits.shape == (3, 5) and embedding.shape == (3, 16)


def test_pretrained_weights_replace_all_but_the_head_of_another_label_set(tmp_path: Path) -> None:
    source, path = cnn(10), tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    target = cnn(3, path)
    same = {k for k, v in target.state_dict().items() if v.shape == source.state_dict()[k].shape}
    assert all(torch.equal(target.state_dict()[k], source.state_dict()[k]) for k in same)
    assert {"head.weight", "head.bias"} == set(target.state_dict()) - same


def test_weights_that_are_missing_or_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"put a \.safetensors file there"):
        cnn(3, tmp_path / "none.safetensors")
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="weights of another one"):
        cnn(3, tmp_path / "other.safetensors")
