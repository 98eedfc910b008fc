"""Signs that somebody floods the model or poisons its feedback (O5)."""

import json
from collections import defaultdict

from ..settings import Monitoring
from .samples import Row


def signs(rows: list[Row], limits: Monitoring) -> list[str]:
    """One sentence each. They never start a retraining: they say that its data may be poisoned."""
    duplicates, contradictions = duplicate_share(rows), contradiction_share(rows)
    sentences = []
    if duplicates > limits.max_duplicates:
        sentences.append(f"{duplicates:.0%} of the requests repeat an earlier one: a flood?")
    if contradictions > limits.max_contradictions:
        sentences.append(
            f"{contradictions:.0%} of the labelled requests have other labels for equal input: "
            "flipped?"
        )
    return sentences


def duplicate_share(rows: list[Row]) -> float:
    """Share of rows whose instance was seen before among them: a flood of one goes to 1."""
    keys = [_key(row) for row in rows if row["instance"] is not None]
    return 1 - len(set(keys)) / len(keys) if keys else 0.0


def contradiction_share(rows: list[Row]) -> float:
    """Share of labelled rows whose identical instance got another label too: people disagree, or
    labels are flipped.
    """
    labels = defaultdict(list)
    for row in rows:
        if row["feedback"] is not None and row["instance"] is not None:
            labels[_key(row)].append(row["feedback"])
    disputed = sum(len(given) for given in labels.values() if len(set(given)) > 1)
    return disputed / max(1, sum(len(given) for given in labels.values()))


def _key(row: Row) -> str:
    return json.dumps(row["instance"], sort_keys=True)
