"""One line of the gate's table, which every method gives."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Outcome = Literal["pass", "fail", "cannot tell", "not applicable"]


@dataclass(frozen=True)
class Verdict:
    """What a method found: its number against its threshold, and why that passes or fails, in
    words.
    """

    method: str
    title: str
    outcome: Outcome
    number: float | None
    threshold: float | None
    why: str
    details: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        return asdict(self)


def outcome(passed: bool) -> Outcome:
    return "pass" if passed else "fail"


def not_declared(method: str, title: str) -> Verdict:
    why = "nothing is declared in task/behaviour.py"
    return Verdict(method, title, "not applicable", None, None, why)
