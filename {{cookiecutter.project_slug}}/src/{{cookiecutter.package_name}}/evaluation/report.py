"""The evaluation as one self-contained page, and as a table on the terminal."""

import base64
import csv
from pathlib import Path
from typing import Any

from ..settings import Settings
from ..task.baselines import NAME

QUESTIONS = {
    "M3": "How good are its answers?",
    "M4": "What do its errors cost?",
    "M5": "What does it look at?",
    "M6": "Is it better than what we would do without it?",
    "M7": "Does it stand up to damaged and hostile inputs?",
    "M8": "Does it ignore what should not matter?",
    "M9": "Does it follow what should matter?",
    "M10": "Do its promises hold?",
    "M11": "Does it know when not to answer?",
    "M12": "Is any group served worse?",
    "E5": "What do the columns do?",
}
WORRIES = {
    "M3": "its answers are not good enough",
    "M4": "its errors cost too much",
    "M6": "it is not clearly better than doing without it",
    "M7": "damaged or hostile inputs break it",
    "M8": "it reacts to what should not matter",
    "M9": "it does not follow what should matter",
    "M10": "it promises more, or less, than it keeps",
    "M11": "it does not know when it is wrong",
    "M12": "a group of rows is served worse",
}
CAPTIONS = {
    "M3": "Answers on the test rows against the truth.",
    "M3 curves": "What every threshold would give; red is the stored one, dashed is guessing.",
    "M4": "What an answer costs on test data; the red line was chosen on validation data.",
    "M5": "How much each part of the input adds to or takes from an answer, over the test rows.",
    "M5 hardest": "The rows it was most wrong on. Red spoke for its answer, or for more; blue against it, or for less.",
    "M5 easiest": "The rows it was most right on.",
    "M6": "Mean loss per test row compared with each other model, with intervals.",
    "M7": "The score as inputs get worse; at 1 nothing is lost.",
    "M8": "How often a harmless change alters the answer.",
    "M8 examples": "Rows whose answer changed though it must not: before and after.",
    "M9": "How often the answer moves the wrong way.",
    "M9 examples": "Rows whose answer fell though it must not: before and after.",
    "M10": "On the dashed line a promise is kept exactly.",
    "M11": "How the error falls when the least sure rows are left to a person.",
    "M12": "Mean loss of groups of rows, the worst on top: declared ones blue, searched ones red, all rows dashed.",
}
ACRONYMS = {"mse", "rmse", "mae", "mape", "msle", "auroc", "auprc", "tpr", "tnr", "fpr", "fnr"}
SHARES = {"accuracy", "precision", "recall", "f1", "tpr", "tnr", "fpr", "fnr", "mape"}
VERDICTS = {
    "pass": "It passes every method of the gate that applies.",
    "fail": "It must not go live.",
    "cannot tell": "The test data cannot tell whether it is good enough: an existing model stays.",
}


def called(metric: str) -> str:
    """A metric's name for reading."""
    if metric == "r2":
        return "R²"
    return metric.upper() if metric in ACRONYMS else metric.replace("_", " ")


def number(metric: str, value: float | None) -> str:
    """A metric for reading: a percentage where it is a share."""
    if value is None:
        return ""
    name = metric.removesuffix("_micro").removesuffix("_macro")
    return (
        f"{value:.1%}" if name in SHARES else f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}"
    )


def shown(verdict: dict[str, Any]) -> str:
    """A method's number for reading."""
    found = verdict["number"]
    return "" if found is None else "< 0.0001" if 0 < found < 1e-4 else f"{found:.4g}"


def bound(verdict: dict[str, Any]) -> str:
    """The threshold with its direction."""
    if verdict["threshold"] is None:
        return ""
    least = verdict["method"] == "M7" or (
        verdict["method"] == "M3" and not verdict["details"].get("lower_is_better")
    )
    return f"{'≥' if least else '≤'} {verdict['threshold']:g}"


def purpose(settings: Settings) -> str:
    """What the model does, in one sentence."""
    data, labels = settings.data, settings.data.labels
    if data.kind == "regression":
        return f"The model predicts a number for each row of {data.name}, with how sure it is."
    if data.kind == "binary":
        return f"The model decides for each row of {data.name} between {labels[0]} and {labels[1]}."
    return f"The model sorts each row of {data.name} into one of {len(labels)} classes."


def summary(content: dict[str, Any], settings: Settings) -> list[str]:
    """A few sentences for somebody who reads no further: purpose, how good, what to worry about."""
    name, metric = content["candidate"], settings.data.goal.metric
    found = {n: number(metric, m["test"][metric]) for n, m in content["metrics"].items()}
    names = {
        "classical": NAME,
        "constant": "always the same answer",
        "heuristic": "a rule of thumb",
        "network": "a network",
    }
    others = ", ".join(f"{names[n]} {v}" for n, v in found.items() if n != name)
    good = f"On test data that it has never seen, the {name} model reaches {called(metric)} {found[name]} ({others})."
    if metric == "r2":
        good += " 1 is perfect, 0 no better than always saying the mean."
    bad = [m for m, v in content["methods"].items() if v["outcome"] in ("fail", "cannot tell")]
    sure = [
        f"{WORRIES[m]} ({content['methods'][m]['why']})"
        for m in bad
        if content["methods"][m]["outcome"] == "fail"
    ]
    unsure = [
        v["title"].lower() for v in content["methods"].values() if v["outcome"] == "cannot tell"
    ]
    left = [
        v["title"].lower() for v in content["methods"].values() if v["outcome"] == "not applicable"
    ]
    worry = f"What to worry about: {'; '.join(sure)}." if sure else "No method found a fault."
    worry += f" Not decided: {', '.join(unsure)}." if unsure else ""
    worry += f" Not examined: {', '.join(left)}." if left else ""
    return [purpose(settings), good, worry, VERDICTS[content["verdict"]]]


def sections(drawn: dict[str, Path]) -> dict[str, list[tuple[str, str, Any]]]:
    """By method the (kind, caption, content) of what was drawn: PNG in base64, or rows of a table."""
    found: dict[str, list[tuple[str, str, Any]]] = {}
    for name, file in drawn.items():
        method, _, rest = name.partition(" ")
        caption = CAPTIONS.get(name, f"{rest.capitalize()}.")
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as lines:
                found.setdefault(method, []).append(("table", caption, list(csv.reader(lines))))
        else:
            chart = base64.b64encode(file.read_bytes()).decode()
            found.setdefault(method, []).append(("chart", caption, chart))
    return found


def write(content: dict[str, Any], drawn: dict[str, Path], settings: Settings, path: Path) -> None:
    """Renders report.html.j2 with everything inside, so that the file can be sent to anybody."""
    import jinja2

    template = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8"))
    text = template.render(
        content=content,
        charts=sections(drawn),
        questions=QUESTIONS,
        summary=summary(content, settings),
        project=settings.project,
        classical=NAME,
        bound=bound,
        shown=shown,
        called=called,
        took=took,
        number=number,
    )
    path.write_text(text + "\n", encoding="utf-8")


def table(content: dict[str, Any]) -> None:
    """The gate's table: method, number, threshold, verdict, why."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    made = Table(
        title=f"Quality of the {content['candidate']}: {content['verdict']}", title_justify="left"
    )
    for column in ("method", "number", "threshold", "verdict", "why"):
        made.add_column(column)
    colours = {"pass": "green", "fail": "red", "cannot tell": "yellow", "not applicable": "dim"}
    for v in content["methods"].values():
        verdict = f"[{colours[v['outcome']]}]{v['outcome']}[/]"
        made.add_row(f"{v['method']} {v['title']}", shown(v), bound(v), verdict, escape(v["why"]))
    console = Console(stderr=True)
    console.print(made)
    if "timing" in content:
        console.print(took(content["timing"]))


def took(timing: dict[str, Any]) -> str:
    """What the methods cost in time."""
    times, plain = timing["multiple"], timing["inference"]
    return f"All methods took {timing['total']:.1f} s, {times:,.0f} times plain answers on the test rows ({plain:.3g} s)."
