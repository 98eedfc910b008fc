"""Dates as numbers for the model, and back; the server runs this code too."""

import math
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

Part = Literal["year", "month", "weekday", "hour", "month cycle", "weekday cycle", "hour cycle"]
LENGTHS = {"month": 12, "weekday": 7, "hour": 24}  # of a cycle
FIRST = {"month": 1, "weekday": 0, "hour": 0}  # Monday is 0


class Dates(BaseModel):
    """How a column of dates is read, and which of their parts the model sees, as numbers. A cycle
    is two numbers, cosine and sine, in which December lies beside January.

    `format` is that of `datetime.strptime`; null: ISO 8601. With a `zone`, such as Europe/Berlin,
    every date has an offset and its parts are those of the local time; without one, none has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    parts: list[Part] = Field(min_length=1)
    years: tuple[int, int]
    format: str | None = None
    zone: str | None = None

    def read(self, text: Any) -> datetime:
        """The moment, in local time. Raises ValueError with the rule that the text breaks."""
        try:
            form = self.format
            moment = datetime.strptime(text, form) if form else datetime.fromisoformat(text)
        except (TypeError, ValueError):
            example = self.format or "ISO 8601, such as 2024-01-31 or 2024-01-31T15:00"
            raise ValueError(f"must be a date as text, {example}") from None
        if (moment.tzinfo is None) != (self.zone is None):
            rule = "have an offset, such as 2024-01-31T15:00+01:00" if self.zone else "have none"
            raise ValueError(f"time zone: must {rule} (`zone` in features.dates)")
        if self.zone:
            moment = moment.astimezone(ZoneInfo(self.zone))
        if not self.years[0] <= moment.year <= self.years[1]:
            raise ValueError(f"must be a date from {self.years[0]} to {self.years[1]}")
        return moment

    @property
    def numbers(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each number that stands for a date."""
        ranges: dict[str, tuple[float, float]] = {}
        for part in self.parts:
            if part.endswith("cycle"):
                ranges |= {f"{part} cos": (-1, 1), f"{part} sin": (-1, 1)}
            elif part == "year":
                ranges[part] = (self.years[0], self.years[1] + 1)  # a range of one year has a width
            else:
                ranges[part] = (FIRST[part], FIRST[part] + LENGTHS[part] - 1)
        return ranges

    def encode(self, text: Any) -> list[float]:
        """The numbers that stand for a date."""
        moment, values = self.read(text), []
        for part in self.parts:
            name, _, cycle = part.partition(" ")
            value = moment.weekday() if name == "weekday" else getattr(moment, name)
            if cycle:
                angle = 2 * math.pi * (value - FIRST[name]) / LENGTHS[name]
                values += [math.cos(angle), math.sin(angle)]
            else:
                values.append(value)
        return values

    def decode(self, values: Sequence[float]) -> str:
        """A date that numbers may stand for: the first one with these parts."""
        parts = {"year": self.years[0], "month": 1, "hour": 0}
        for part, value in self._parts(dict(zip(self.numbers, values, strict=True))).items():
            parts[part] = round(value)
        day = date(parts["year"], parts["month"], 1)
        day += timedelta((parts.get("weekday", day.weekday()) - day.weekday()) % 7)
        zone = ZoneInfo(self.zone) if self.zone else None
        moment = datetime(day.year, day.month, day.day, parts["hour"], tzinfo=zone)
        return moment.strftime(self.format) if self.format else moment.isoformat()

    def example(self) -> str:
        """A date as it is written."""
        return self.decode([low for low, _ in self.numbers.values()])

    def _parts(self, values: dict[str, float]) -> dict[str, float]:
        """The value of each part, in its range."""
        parts: dict[str, float] = {}
        for part in self.parts:
            name, _, cycle = part.partition(" ")
            if cycle:
                angle = math.atan2(values[f"{part} sin"], values[f"{part} cos"])
                turns = round(angle / (2 * math.pi) * LENGTHS[name])
                parts[name] = FIRST[name] + turns % LENGTHS[name]
            else:
                low, high = self.numbers[part]
                parts[name] = min(max(values[part], low), high - (name == "year"))
        return parts
