from typing import Any

import numpy as np
import pytest
from harness import Project
from test_compare import call, losses, record  # type: ignore[import-not-found]


@pytest.mark.row("E10")
def test_losses_of_values_are_brought_to_one_unit(project: Project) -> None:
    errors, ids = np.random.default_rng(0).exponential(size=400), []
    for scale in (1.0, 2.0):
        table = losses(0).assign(network=errors / scale**2)
        kind: dict[str, Any] = {"data.kind": "regression"}
        ids.append(record(project, {}, table, scale=scale, **kind))
    report = call(*ids)
    assert report["test"]["difference"] == pytest.approx(0)
    assert "cannot be told apart" in report["verdict"]
