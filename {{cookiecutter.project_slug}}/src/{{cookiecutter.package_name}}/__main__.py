"""python -m <package> <verb> [key=value ...]: all stages on one command line, each imported when
called.
"""

import argparse
import os
import runpy
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

# verb: (module, what it does)
VERBS = {
    "describe": (
        "data.describe",
        "draft the configuration of your own data: configs/data and configs/experiment",
    ),
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
    "checklist": ("checklist", "print, per row of the checklist, its proof or what is missing"),
}
# Without options of their own: their help need not import them.
PLAIN = ("ingest", "validate", "split", "evaluate", "package", "sync")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def is_here(verb: str) -> bool:
    """Whether this project has a verb: the lean profile lacks some."""
    return (Path(__file__).parent / (VERBS[verb][0].replace(".", "/") + ".py")).is_file()


def overview() -> str:
    """All verbs, a line each."""
    lines = [f"  {verb:<10} {VERBS[verb][1]}" for verb in filter(is_here, VERBS)]
    usage = f"usage: python -m {__package__} <verb> [key=value ...]"
    return "\n".join(
        [
            usage,
            "",
            "verbs:",
            *lines,
            "",
            "`<verb> --help` explains one; `--debug` prints tracebacks.",
        ]
    )


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; `{self.prog} --help` lists what there is")


def command_line(verb: str) -> argparse.ArgumentParser:
    """A verb's options, and the settings to change."""
    parser = Parser(
        prog=f"python -m {__package__} {verb}",
        description=VERBS[verb][1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=8")
    if verb not in PLAIN:
        module = import_module(f".{VERBS[verb][0]}", __package__)
        parser.epilog = module.__doc__
        module.arguments(parser)
    return parser


def bypass_proxies() -> None:
    """Requests to this machine, such as to a tracker, go through none of the proxies that the
    environment names; without one a system's own settings count, which NO_PROXY would put out of
    force.
    """
    from urllib.request import getproxies_environment

    proxies = getproxies_environment()
    if proxies and proxies.get("no") != "*":
        os.environ["no_proxy"] = f"{proxies.get('no', '')},127.0.0.1,localhost,::1"


def run(verb: str, argv: list[str]) -> int:
    """Raises ValueError and the like for what a user got wrong."""
    from .params import load

    if verb == "train" and not {"--pipeline", "--help", "-h"} & {*argv}:
        from .training.train import explore

        return explore(argv)  # Hydra's own command line
    args = command_line(verb).parse_intermixed_args(argv)
    module = import_module(f".{VERBS[verb][0]}", __package__)
    # A verb that composes configs/ itself gets its overrides as they are.
    settings = None if hasattr(module, "COMPOSES") else load(args.overrides)
    return int(module.run(settings, args))


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; its exit code, or 2 and one line for what a user got wrong."""
    verb, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if verb in ("-h", "--help"):
        print(overview())
        return 0
    os.environ.update({**QUIET, **os.environ})  # nothing phones home
    bypass_proxies()
    from .logs import explain
    from .settings import refuse_renamed

    if "LOCAL_RANK" in os.environ and verb not in VERBS:
        verb, rest = "train", [verb, *rest]  # Lightning starts its other processes without the verb
    debug = "--debug" in rest
    rest = [word for word in rest if word != "--debug"]
    try:
        refuse_renamed([verb, *rest])
        if verb not in VERBS or not is_here(verb):
            verbs = ", ".join(filter(is_here, VERBS))
            raise ValueError(f"unknown verb {verb!r}; choose one of {verbs}")
        return run(verb, rest)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        line = explain(error)
        if line is None or debug:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    package = Path(__file__).parent
    here = Path("src", package.name).resolve()
    if here.is_dir() and not here.samefile(package):
        # In a second clone, a worktree or one of DVC's experiments, the environment leads to other
        # code: what is run there, in all processes, is the code that lies there.
        os.environ["PYTHONPATH"] = f"{here.parent}{os.pathsep}{os.getenv('PYTHONPATH', '')}"
        sys.path.insert(0, str(here.parent))
        del sys.modules[package.name]
        runpy.run_module(package.name, run_name="__main__", alter_sys=True)
    sys.exit(main())
