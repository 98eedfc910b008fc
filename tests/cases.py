#!/usr/bin/env python3
"""Writes small inputs of the kinds that users have; tests/test_cases.py says what a project must do with each.

    python cases.py FOLDER [first_hours]     # needs numpy, pandas, pyarrow and pillow, as generated projects do

Every case is a folder or file below FOLDER. All content is made up here.
"""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image


def numbers(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"a": rng.normal(size=n).round(3), "b": rng.normal(size=n).round(3), "c": rng.choice(list("xyz"), n)}
    )
    return table.assign(y=np.where(table.a + table.b + (table.c == "x") + 0.3 * rng.normal(size=n) > 0.3, "yes", "no"))


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    base, rng = numbers(300, 1), np.random.default_rng(2)
    base.to_csv(folder / "keyless.csv", index=False)
    code = base.c.map({"x": 1, "y": 2, "z": 3}).astype("int64")
    base.assign(key=np.arange(1000, 1300), c=code, y=base.y == "yes").to_parquet(
        folder / "integer_key.parquet", index=False
    )
    lines = ["a,b,y"] + [f"{i},{r.a},{r.b},{10 * r.a + r.b:.3f}" for i, r in enumerate(base.itertuples(), 1)]
    (folder / "extra_field.csv").write_text("\n".join(lines) + "\n")
    text = base.to_csv(index=False).splitlines()
    text[40] = text[40].rsplit(",", 1)[0]
    (folder / "short_row.csv").write_text("\n".join(text) + "\n")
    base.assign(c=rng.choice(["NA", "None", "null", "EU"], 300)).to_csv(folder / "na_category.csv", index=False)
    comma = base.assign(
        a=[f"{1000 * v:,.2f}".translate(str.maketrans(",.", ".,")) for v in base.a],
        b=[f"{v:.3f}".replace(".", ",") for v in base.b],
    )
    comma.to_csv(folder / "decimal_comma.csv", index=False, sep=";")
    (folder / "latin1.csv").write_bytes(
        base.assign(c=base.c.map({"x": "Köln", "y": "Gießen", "z": "Bonn"})).to_csv(index=False).encode("latin-1")
    )
    when = pd.date_range("2024-01-01", periods=1200, freq="3h")
    value = 10 + 5 * np.sin(when.hour / 24 * 6.283) + when.month + rng.normal(size=1200)
    pd.DataFrame(
        {
            "when": when.strftime("%Y-%m-%dT%H:%M:%S"),
            "stamp": when.strftime("%Y-%m-%d %H:%M:%S+00:00"),
            "wind": rng.gamma(2, size=1200).round(3),
            "value": value.round(3),
        }
    ).to_csv(folder / "dates.csv", index=False)
    many = numbers(4000, 3).assign(
        city=[f"c{int(v)}" for v in np.concatenate([np.arange(400), rng.integers(400, 800, 3600)])]
    )
    many.to_csv(folder / "many_values.csv", index=False)
    numbers(900, 4).assign(day=pd.date_range("2023-01-01", periods=900).strftime("%Y-%m-%d")).to_csv(
        folder / "time_split.csv", index=False
    )
    numbers(900, 5).assign(patient=[f"p{i // 3}" for i in range(900)]).to_csv(folder / "group_split.csv", index=False)
    days = pd.date_range("2021-07-01", periods=900)
    numbers(900, 12).assign(day=days.strftime("%d/%m/%Y"), number=np.arange(900)).to_csv(
        folder / "text_dates.csv", index=False
    )
    late = numbers(900, 13)
    seconds = 1_700_000_000 + rng.integers(0, 600, 900)
    late.assign(signup=seconds, y=np.where(seconds % 600 + 200 * late.a > 300, "yes", "no")).to_csv(
        folder / "unix_seconds.csv", index=False
    )
    numbers(300, 14).rename(columns={"a": "größe (€, %)", "b": "km/h & more"}).to_csv(
        folder / "odd_names.csv", index=False
    )
    rare = numbers(400, 6)
    rare.loc[:2, "y"] = "rare"
    rare.to_csv(folder / "rare_class.csv", index=False)
    x = rng.normal(size=(6000, 2))
    label = np.where(rng.random(6000) < 1 / (1 + np.exp(4.2 - 1.6 * x[:, 0] - x[:, 1])), "yes", "no")
    pd.DataFrame({"a": x[:, 0].round(3), "b": x[:, 1].round(3), "y": label}).to_csv(
        folder / "imbalanced.csv", index=False
    )
    pd.DataFrame({"a": rng.integers(0, 12, 400), "b": rng.integers(0, 9, 400)}).assign(
        y=lambda t: 3 * t.a - t.b + rng.normal(size=400).round(2)
    ).to_csv(folder / "few_columns.csv", index=False)
    names = [
        "Longleaf tidal marsh orchid (Platanthera)",
        "Brick & stone masonry with lime mortar jnt",
        "Everything else that nobody has named yet",
    ]
    long = numbers(600, 7)
    long.assign(y=[names[int(v)] for v in np.clip(long.a + 1.5, 0, 2)]).to_csv(folder / "long_labels.csv", index=False)
    w = rng.normal(size=(500, 300)).round(4)
    pd.DataFrame(w, columns=[f"sensor {i}" for i in range(300)]).assign(
        y=(w[:, :5].sum(1) + 0.5 * rng.normal(size=500)).round(3)
    ).to_parquet(folder / "wide.parquet", index=False)
    numbers(300, 8).assign(same=1.0, gone=np.nan).to_csv(folder / "constant_column.csv", index=False)
    numbers(300, 9).assign(
        key=[9_007_199_254_740_993 + 1000 * i for i in range(300)], c=rng.choice([123456789012, 123456789013], 300)
    ).to_csv(folder / "big_integers.csv", index=False)
    numbers(300, 10).rename(columns={"a": "Länge (mm)", "b": "class", "c": "sub.type [x]"}).to_csv(
        folder / "headers.csv", index=False
    )
    quoted = numbers(300, 11)
    quoted.assign(c=quoted.c.map({"x": 'say "x", twice', "y": "line\nbreak", "z": "plain"})).to_csv(
        folder / "quoted_newlines.csv", index=False
    )
    images(folder / "mixed_images", rng)


def images(folder: Path, rng: np.random.Generator, most: int = 60) -> None:
    for name, count in (("stripes", most), ("two words", most), ("rare", 3)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            size, wave = (
                (int(rng.integers(48, 90)), int(rng.integers(48, 90))),
                np.arange(90) // (3 if name == "stripes" else 12) % 2 * 200,
            )
            pixels = np.clip(
                (wave[None, :] if name != "rare" else wave[:, None]) + rng.normal(20, 10, (90, 90)), 0, 255
            ).astype(np.uint8)[: size[1], : size[0]]
            picture = Image.fromarray(pixels)
            kind = i % 6
            path = folder / name / f"picture {i}"
            if kind == 0:
                picture.save(path.with_suffix(".png"))
            elif kind == 1:
                picture.convert("RGB").convert("P").save(path.with_suffix(".png"))
            elif kind == 2:
                picture.convert("RGBA").save(path.with_suffix(".png"))
            elif kind == 3:
                picture.convert("CMYK").save(path.with_suffix(".jpg"))
            elif kind == 4:
                Image.fromarray(pixels.astype(np.uint16) * 256).save(path.with_suffix(".png"))
            else:
                exif = Image.Exif()
                exif[274] = 6  # turned by a quarter
                picture.convert("RGB").save(path.with_suffix(".jpeg"), exif=exif)
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((60, 60), np.uint8)).save(buffer, "JPEG")
    (folder / "stripes" / "broken.jpg").write_bytes(buffer.getvalue()[:200])
    (folder / "stripes" / "notes.png").write_text("not a picture")
    glyph = np.zeros((60, 60, 4), np.uint8)
    glyph[20:40, 20:40, 3] = 255  # black on a transparent ground
    Image.fromarray(glyph).save(folder / "two words" / "glyph.png")


def first_hours(folder: Path) -> None:
    """What tests/test_first_hour.py brings to a trained, served and watched model."""
    rng = np.random.default_rng(20)
    n = 1500
    kind = rng.integers(0, 3, n)
    trees = pd.DataFrame(
        {
            "leaf length": (6 + 2 * kind + rng.normal(size=n)).round(1),
            "height": (18 + 3 * (kind == 1) + 2 * rng.normal(size=n)).round(1),
            "rings": rng.integers(5, 120, n),
            "bark": np.where(rng.random(n) < 0.8, np.array(["smooth", "white", "rough"])[kind], "rough"),
            "soil": rng.choice(["clay", "sand", "loam"], n),
            "kind": np.array(["ash", "birch", "oak"])[kind],
        }
    )
    trees["height"] = trees["height"].mask(rng.random(n) < 0.05)
    trees["bark"] = trees["bark"].mask(rng.random(n) < 0.03)
    trees.to_csv(folder / "trees.csv", index=False)
    n = 50_000
    day = pd.Timestamp("2023-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 730, n)), unit="D")
    flats = pd.DataFrame(
        {
            "sold": day.strftime("%d/%m/%Y"),
            "area": (20 + rng.gamma(8, 8, n)).round(1),
            "rooms": rng.integers(1, 7, n),
            "floor": rng.integers(0, 12, n),
            "district": rng.choice(["north", "south", "east", "west", "centre"], n),
            "lift": rng.random(n) < 0.4,
            "distance": rng.gamma(2, 2, n).round(2),
        }
    )
    place = flats["district"].map({"north": 2.8, "south": 3.2, "east": 2.5, "west": 3.0, "centre": 4.5})
    noise = rng.lognormal(0, 0.15, n)
    flats["price"] = (1000 * (20 + flats.area * place - 2 * flats.distance + 10 * flats.lift) * noise).round(-2)
    flats.to_parquet(folder / "flats.parquet", index=False)
    images(folder / "photographs", rng, 200)
    shutil.rmtree(folder / "photographs" / "rare")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    first_hours(Path(sys.argv[1])) if sys.argv[2:] else write(Path(sys.argv[1]))
