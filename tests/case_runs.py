"""Runs cases in a generated project: `python case_runs.py PROJECT CASES RESULTS`, in its environment.

Each case is described, then composed with its overrides, and goes through ingest, validate and split. RESULTS is a
JSON file: by case, the exit code of each verb, what it said, and facts about the snapshot and the splits.
"""

import contextlib
import importlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

ALIKE = "data.split.max_near_duplicates=0.2"  # two coarse numbers are alike by chance
UNDATED, NO_EXAMPLES = "~data.features.dates", "data.features.examples=[]"
NUMBERED = "data.source.columns=[a,b,c,number]"
CASES: dict[str, tuple[str, list[str], list[str]]] = {  # name: file, options of describe, overrides
    "keyless": ("keyless.csv", [], []),
    "integer_key": (
        "integer_key.parquet",
        [],
        ["~data.features.numeric.c", NO_EXAMPLES, "+data.features.categorical={c: ['1', '2', '3']}"],
    ),
    "extra_field": ("extra_field.csv", [], ["source=files", "data.source.path=CASE", "data.source.label=y"]),
    "short_row": ("short_row.csv", [], ["source=files", "data.source.path=CASE", "data.source.label=y"]),
    "unclosed": ("unclosed.csv", [], ["source=files", "data.source.path=CASE", "data.source.label=y"]),
    "na_category": ("na_category.csv", [], []),
    "na_numbers": ("na_numbers.csv", [], []),
    "na_numbers_unsaid": ("na_numbers.csv", [], ["data.missing=[]"]),
    "decimal_comma": ("decimal_comma.csv", [], []),
    "latin1": ("latin1.csv", [], []),
    "latin1_unsaid": ("latin1.csv", [], ["data.source.encoding=utf-8"]),
    "utf16": ("utf16.csv", [], []),
    "dates": ("dates.csv", ["--label", "value"], []),
    "dates_by_time": (
        "dates.csv",
        ["--label", "value"],
        ["data.split.time={column: stamp}", "data.split.max_label_deviation=1"],
    ),
    "many_values": ("many_values.csv", [], []),
    "time_split": ("time_split.csv", [], ["data.split.time={column: day}", UNDATED, NO_EXAMPLES, ALIKE]),
    "group_split": ("group_split.csv", [], []),
    "rare_class": ("rare_class.csv", [], []),
    "rare_class_allowed": ("rare_class.csv", [], ["data.allow_absent=[rare]"]),
    "wide": ("wide.parquet", [], []),
    "constant_column": ("constant_column.csv", [], []),
    "big_integers": ("big_integers.csv", [], []),
    "big_integers_missing": ("big_integers_missing.parquet", [], []),
    "headers": ("headers.csv", ["--label", "y"], []),
    "quoted_newlines": ("quoted_newlines.csv", [], []),
    "quoted_newlines_broken": ("quoted_newlines_broken.csv", [], ["data.features.numeric.a=[-9,9]", "data.missing=[]"]),
    "text_dates": (
        "text_dates.csv",
        [],
        ["data.split.time={column: day, format: '%d/%m/%Y'}", UNDATED, NO_EXAMPLES, ALIKE],
    ),
    "text_dates_unsaid": ("text_dates.csv", [], ["data.split.time={column: day}", UNDATED, NO_EXAMPLES]),
    "text_numbers": ("text_numbers.csv", ["--label", "y"], ["data.split.time={column: number}", NUMBERED, ALIKE]),
    "mixed_zones": (
        "mixed_zones.csv",
        ["--label", "y"],
        ["data.split.time={column: when}", "data.source.columns=[a,b,c,when]", NO_EXAMPLES],
    ),
    "unix_seconds": ("unix_seconds.csv", [], []),
    "gzipped": ("keyless.csv.gz", ["--name", "gzipped"], []),
    "spreadsheet": ("table.xlsx", [], []),
    "json_lines": ("table.jsonl", [], []),
    "wrong_label": ("keyless.csv", ["--name", "wrong_label", "--label", "yy"], []),
}


def siblings(folder: Path) -> None:
    """Further inputs of the same kinds."""
    import gzip

    import numpy as np
    import pandas as pd

    base = pd.read_csv(folder / "keyless.csv")
    base.assign(a=base["a"].astype(str).where(base.index % 50 != 7, "n/a")).to_csv(
        folder / "na_numbers.csv", index=False
    )
    (folder / "utf16.csv").write_text((folder / "keyless.csv").read_text("utf-8"), encoding="utf-16")
    (folder / "keyless.csv.gz").write_bytes(gzip.compress((folder / "keyless.csv").read_bytes()))
    text = (folder / "keyless.csv").read_text("utf-8").splitlines()
    text[120] = text[120].replace(",", ',"', 1)
    (folder / "unclosed.csv").write_text("\n".join(text) + "\n", encoding="utf-8")
    quoted = pd.read_csv(folder / "quoted_newlines.csv").astype({"a": str})
    quoted.loc[222, "a"] = "twelve"
    quoted.to_csv(folder / "quoted_newlines_broken.csv", index=False)
    long = pd.read_csv(folder / "big_integers.csv", dtype={"key": "Int64", "c": "Int64"})
    long.assign(c=long["c"].mask(long.index % 30 == 0)).to_parquet(folder / "big_integers_missing.parquet", index=False)
    days = pd.read_csv(folder / "text_dates.csv", dtype=str)
    days.drop(columns="day").sample(frac=1, random_state=1).to_csv(folder / "text_numbers.csv", index=False)
    moments = pd.Series(pd.date_range("2024-01-01", periods=300, freq="3h").strftime("%Y-%m-%dT%H:%M"))
    base.assign(when=moments + np.where(base.index % 2, "+01:00", "")).to_csv(folder / "mixed_zones.csv", index=False)
    (folder / "table.xlsx").write_bytes(b"PK")
    (folder / "table.jsonl").write_text('{"a": 1}\n', encoding="utf-8")


def facts(package: str, settings: Any) -> dict[str, Any]:
    """What tests ask of the snapshot and the splits."""
    import pandas as pd

    rows = pd.read_parquet(settings.paths.raw / "data.parquet")
    told: dict[str, Any] = {
        "rows": len(rows),
        "head": json.loads(rows.head(3).to_json(orient="records")),
        "missing": rows.isna().sum().to_dict(),
        "values": {name: sorted(map(str, rows[name].dropna().unique())) for name in rows if rows[name].nunique() < 60},
        "ids": rows["id"].tolist(),
    }
    if settings.paths.splits.is_dir():
        parts = {file.stem: pd.read_parquet(file) for file in settings.paths.splits.glob("*.parquet")}
        told["splits"] = {name: part["id"].tolist() for name, part in parts.items()}
    with contextlib.suppress(KeyError, ValueError):
        features = importlib.import_module(f"{package}.task.features")
        inputs = features.encode(rows, features.Features.model_validate(settings.data.features))
        told["different"] = {name: [len({*column}) for column in v.T.tolist()] for name, v in inputs.items()}
    return told


def run(package: str, name: str, folder: Path, said: io.StringIO) -> dict[str, Any]:
    """One case, in a clean working folder."""
    import shutil

    main = importlib.import_module(f"{package}.__main__").main
    params = importlib.import_module(f"{package}.params")
    file, options, overrides = CASES[name]
    for leftover in ("data/raw", "data/splits", "reports"):
        shutil.rmtree(leftover, ignore_errors=True)
    result: dict[str, Any] = {"codes": {}, "said": {}}

    def verb(*argv: str) -> int:
        said.seek(0)
        said.truncate()
        code = int(main([*argv]))
        result["codes"][argv[0]], result["said"][argv[0]] = code, said.getvalue()
        return code

    case = str(folder / file)
    described = verb("describe", case, "--force", *({} if "--name" in options else ["--name", name]), *options)
    if described == 0:
        overrides = [f"experiment={name}", *overrides]
        result["config"] = Path(f"configs/data/{name}.yaml").read_text(encoding="utf-8")
    elif not overrides:
        return result
    composed = params.compose([override.replace("CASE", case) for override in overrides])
    params.PARAMS.write_text(composed, encoding="utf-8")
    for stage in ("ingest", "validate", "split"):
        if verb(stage) != 0:
            break
    if Path("data/raw/data.parquet").is_file():
        result["facts"] = facts(package, params.load())
    return result


def main() -> None:
    project, folder, results = map(Path, sys.argv[1:])
    os.chdir(project)
    package = next(path.parent.name for path in Path("src").glob("*/__main__.py"))
    siblings(folder)
    # One stream for all: the stages' loggers keep the first that they see.
    with contextlib.redirect_stderr(io.StringIO()) as said:
        outcome = {name: run(package, name, folder, said) for name in CASES}
    results.write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main()
