"""The evaluation as one page, and its gate as a table on the terminal."""

import csv
from pathlib import Path
from typing import Any

from .. import pages
from ..modeling import kinds
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
    "M5 hardest": "The rows it was most wrong on. Red spoke for its answer, or for more; "
    "blue against it, or for less.",
    "M5 easiest": "The rows it was most right on.",
    "M6": "Mean loss per test row compared with each other model, with intervals.",
    "M7": "The score as inputs get worse; at 1 nothing is lost.",
    "M8": "How often a harmless change alters the answer.",
    "M8 examples": "Rows whose answer changed though it must not: before and after.",
    "M9": "How often the answer moves the wrong way.",
    "M9 examples": "Rows whose answer fell though it must not: before and after.",
    "M10": "On the dashed line a promise is kept exactly.",
    "M11": "How the error falls when the least sure rows are left to a person.",
    "M12": "Mean loss of groups of rows, the worst on top: declared ones blue, searched ones red, "
    "all rows dashed.",
}
UPPER = {"mse", "rmse", "mae", "mape", "msle", "auroc", "auprc", "tpr", "tnr", "fpr", "fnr"}
SHARES = {"accuracy", "precision", "recall", "f1", "tpr", "tnr", "fpr", "fnr", "mape"}
VERDICTS = {
    "pass": "It passes every method of the gate that applies.",
    "fail": "It must not go live.",
    "cannot tell": "The test data cannot tell whether it is good enough: an existing model stays.",
}
MODELS = {
    "classical": NAME,
    "constant": "always the same answer",
    "heuristic": "a rule of thumb",
    "network": "a network",
}


def metric_name(metric: str) -> str:
    """A metric's name for reading."""
    name = metric.upper() if metric in UPPER else metric.replace("_", " ")
    return "R²" if metric == "r2" else name


def metric_text(metric: str, value: float | None) -> str:
    """A metric for reading: a percentage where it is a share."""
    if value is None:
        return ""
    if metric.removesuffix("_micro").removesuffix("_macro") in SHARES:
        return f"{value:.1%}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.4g}"


def number(verdict: dict[str, Any]) -> str:
    """A method's number for reading."""
    value = verdict["number"]
    if value is None:
        return ""
    return "< 0.0001" if 0 < value < 1e-4 else f"{value:.4g}"


def bound(verdict: dict[str, Any]) -> str:
    """The threshold with its direction."""
    if verdict["threshold"] is None:
        return ""
    lower = verdict["details"].get("lower_is_better", verdict["method"] not in ("M3", "M7"))
    return f"{'≤' if lower else '≥'} {verdict['threshold']:g}"


def time_text(timing: dict[str, Any]) -> str:
    """What the methods cost in time."""
    times, plain = timing["multiple"], timing["inference"]
    return (
        f"All methods took {timing['total']:.1f} s, {times:,.0f} times plain answers on the test "
        f"rows ({plain:.3g} s)."
    )


def summary(content: dict[str, Any], settings: Settings) -> list[str]:
    """A few sentences for somebody who reads no further: purpose, how good, what to worry about."""
    data, name, metric = settings.data, content["candidate"], settings.data.goal.metric
    values = {n: metric_text(metric, m["test"][metric]) for n, m in content["metrics"].items()}
    others = ", ".join(f"{MODELS[n]} {v}" for n, v in values.items() if n != name)
    good = f"On test data that it has never seen, the {name} model reaches "
    good += f"{metric_name(metric)} {values[name]} ({others})."
    if metric == "r2":
        good += " 1 is perfect, 0 no better than always saying the mean."
    titles: dict[str, list[str]] = {}
    for method, verdict in content["methods"].items():
        words = verdict["title"].lower()
        if verdict["outcome"] == "fail":
            words = f"{WORRIES[method]} ({verdict['why']})"
        titles.setdefault(verdict["outcome"], []).append(words)
    worry = "No method found a fault."
    if "fail" in titles:
        worry = f"What to worry about: {'; '.join(titles['fail'])}."
    for outcome, words in {"cannot tell": "decided", "not applicable": "examined"}.items():
        if outcome in titles:
            worry += f" Not {words}: {', '.join(titles[outcome])}."
    return [kinds.of(data.kind).purpose(data.name, data.labels), good, worry]


def gate(content: dict[str, Any]) -> list[list[str]]:
    """Rows of the gate's table."""
    return [
        [f"{v['method']} {v['title']}", number(v), bound(v), v["outcome"], v["why"]]
        for v in content["methods"].values()
    ]


COLUMNS = ("method", "number", "threshold", "verdict", "why")


def models(content: dict[str, Any]) -> pages.Section:
    """All models on test data."""
    metrics, rows = content["metrics"], []
    for metric in metrics[content["candidate"]]["test"]:
        values = (metric_text(metric, m["test"].get(metric)) for m in metrics.values())
        rows.append([metric_name(metric), *values])
    why = content["selection"]
    why = f"{why[0].upper()}{why[1:]}. Constant always gives the same answer, heuristic is a rule "
    text = pages.Text(f"{why}that a person would write, classical is {NAME}.")
    return pages.Section("All models on test data", [text, pages.Table(["metric", *metrics], rows)])


def findings(method: str, content: dict[str, Any]) -> list[pages.Text]:
    """What a method says, in a paragraph."""
    verdict, explanation = content["methods"].get(method), content.get("explanation")
    if verdict:
        words = f"{verdict['title']} ({method}): {verdict['why']}."
        if number(verdict):
            words += f" Found {number(verdict)}"
            words += f", wanted {bound(verdict)}." if bound(verdict) else "."
        return [pages.Text(words, verdict["outcome"])]
    if method == "M5" and explanation:
        left = f"{explanation['unexplained']:.1%} of the difference"
        words = f"By {explanation['method']} on {explanation['rows']} test rows, compared with the "
        return [pages.Text(f"{words}usual input. {left} is not explained by single features.")]
    return []


def illustrations(method: str, files: dict[str, Path]) -> list[pages.Picture | pages.Table]:
    """What was drawn of a method."""
    parts: list[pages.Picture | pages.Table] = []
    for name, file in files.items():
        first, _, rest = name.partition(" ")
        caption = CAPTIONS.get(name, f"{rest.capitalize()}.")
        if first == method and file.suffix == ".csv":
            columns, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
            parts.append(pages.Table(columns, rows, caption))
        elif first == method:
            parts.append(pages.Picture(file.read_bytes(), caption))
    return parts


def write(
    content: dict[str, Any],
    timing: dict[str, Any],
    files: dict[str, Path],
    settings: Settings,
    path: Path,
) -> None:
    """The page with everything inside, so that it can be sent to anybody."""
    lead = [pages.Text(text) for text in summary(content, settings)]
    lead = [pages.Text(VERDICTS[content["verdict"]], content["verdict"]), *lead]
    table = pages.Table(COLUMNS, gate(content), time_text(timing), stack=True)
    sections = [pages.Section("The gate", [table]), models(content)]
    for method, question in QUESTIONS.items():
        parts = [*findings(method, content), *illustrations(method, files)]
        if parts:
            sections.append(pages.Section(question, parts, method))
    origin, project = content["provenance"], settings.project
    footer = f"Owner {project.owner} · code {origin['code'][:12]} · data {origin['data'][:12]}"
    pages.write(path, f"Evaluation of {project.name}", lead, sections, footer)


def print_gate(content: dict[str, Any], timing: dict[str, Any]) -> None:
    """The gate's table: method, number, threshold, verdict, why."""
    from rich.console import Console

    title = f"Quality of the {content['candidate']}: {content['verdict']}"
    pages.print_table(title, COLUMNS, gate(content), stderr=True)
    Console(stderr=True).print(time_text(timing), highlight=False)
