"""python -m <package> <verb> [key=value ...]: all stages on one command line, each imported when
called.
"""

import argparse
import ast
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

# verb: (module, what it does)
VERBS = {
    "ingest": ("data.ingest", "read the source into an immutable snapshot, data/raw"),
    "validate": ("data.validate", "check every row of the snapshot; exit 1 when data is invalid"),
    "split": ("data.split", "assign every row to train, val, calibration or test"),
    "train": ("training.train", "train the network and the baselines"),
    "evaluate": ("evaluation.evaluate", "run the quality methods on the candidates"),
    "package": ("packaging.package", "export the better candidate as a bundle and measure it"),
    "promote": (
        "packaging.promote",
        "decide on the bundle: exit 0 promoted, 3 refused, 4 cannot tell",
    ),
    "rollback": ("packaging.rollback", "make the previous champion the champion again"),
    "pull": (
        "packaging.pull",
        "fetch the champion and the challenger from the registry into live/",
    ),
    "pipeline": ("pipeline", "compose, run what changed, promote, pull"),
    "serve": ("serving.serve", "answer HTTP requests with the champion in live/"),
    "replay": (
        "serving.replay",
        "send rows of a split to a running server, corrupted if asked, and check the answers",
    ),
    "batch": ("serving.batch", "score a file with a bundle"),
    "monitor": (
        "monitoring.monitor",
        "judge stored predictions: exit 0 no alarm, 3 alarm, 4 cannot tell",
    ),
    "routine": (
        "monitoring.routine",
        "monitor and, where that asks for it, retrain through the same gates",
    ),
    "compare": (
        "experiments.compare",
        "compare runs, or two configurations by training both again and again",
    ),
    "sweep": (
        "experiments.sweep",
        "search for the best configuration, within a budget of trials or time, or to the goal",
    ),
    "recipe": ("recipes.recipe", "measure one way to train or serve cheaper, beside the plain run"),
    "reproduce": (
        "experiments.reproduce",
        "train a recorded run again from its record: exit 0 equal, 1 different",
    ),
    "gc": (
        "experiments.gc",
        "free what neither champion, rollback nor audit needs: runs, models, data, leftovers",
    ),
    "sync": ("mirror", "deliver recorded runs to the team's server, after it was away"),
    "ui": ("experiments.ui", "open the tracker's web page"),
    "bench": ("bench", "measure the speed of one part, such as `bench train`"),
    "checklist": ("checklist", "print, per row of the checklist, its proof or what is missing"),
}
# No options of their own: help must not wait for their libraries. The others import theirs when
# they run.
PLAIN = {"ingest", "validate", "split", "evaluate", "package"}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def overview() -> argparse.ArgumentParser:
    """All verbs, a line each."""
    lines = [f"  {name:<10} {text}" for name, (_, text) in VERBS.items()]
    epilog = "verbs:\n" + "\n".join(lines) + "\n\n`python -m <package> <verb> --help` explains one."
    return argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        usage=f"python -m {__package__} <verb> [key=value ...]",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parser(verb: str, module: ModuleType | None) -> argparse.ArgumentParser:
    """A verb's command line; without its module, one that serves for help alone."""
    one = argparse.ArgumentParser(
        prog=f"python -m {__package__} {verb}",
        description=f"{VERBS[verb][1]}.",
        epilog=module.__doc__ if module else _docstring(verb),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, such as serving.port=9000",
    )
    if module and verb not in PLAIN:
        module.arguments(one)
    return one


def _docstring(verb: str) -> str | None:
    spec = importlib.util.find_spec(f"{__package__}.{VERBS[verb][0]}")
    assert spec is not None and spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))


def main(argv: list[str] | None = None) -> int:
    """Runs one verb and returns its exit code; what a user got wrong is one line and exit code 2."""
    argv = sys.argv[1:] if argv is None else argv
    for name, value in QUIET.items():  # nothing phones home
        os.environ.setdefault(name, value)
    if not argv or argv[0] in ("-h", "--help"):
        overview().print_help()
        return 0
    if argv[0] not in VERBS and "LOCAL_RANK" in os.environ:
        argv = [
            "train",
            *argv,
        ]  # Lightning starts the other processes with Hydra's part of the command line
    verb = argv[0]
    if verb not in VERBS:
        print(f"error: unknown verb {verb!r}; choose one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    helps = bool({"-h", "--help"} & {*argv})
    module = (
        None
        if helps and verb in PLAIN
        else importlib.import_module(f".{VERBS[verb][0]}", __package__)
    )
    one = parser(verb, module)
    explores = hasattr(module, "explore") and "--pipeline" not in argv and not helps
    args = one.parse_intermixed_args(argv[1:] if not explores else [])
    assert module is not None  # help has ended the program
    from .logs import explain
    from .params import load

    try:
        if explores:
            return int(module.explore(argv[1:]))
        # A verb that composes configs/ itself gets its overrides as they are.
        settings = None if getattr(module, "COMPOSES", False) else load(args.overrides)
        return int(module.run(settings, args))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
