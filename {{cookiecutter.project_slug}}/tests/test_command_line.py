import subprocess
import sys
from pathlib import Path

import pytest
from harness import PACKAGE, ROOT, Project, module

VERBS = list(filter(module("__main__").is_here, module("__main__").VERBS))


def call(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", PACKAGE, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        module("__main__").main([verb, "--help"])
    assert done.value.code == 0
    assert module("__main__").VERBS[verb][1] in " ".join(capsys.readouterr().out.split())


HELP = f"""
import contextlib, sys, {PACKAGE}.__main__ as m
for verb in (*filter(m.is_here, m.VERBS), None):
    with contextlib.suppress(SystemExit):
        m.main([verb, "--help"] if verb else ["--help"])
    large = "torch lightning mlflow pandas pyarrow matplotlib optuna dvc".split()
    found = set(large) & set(sys.modules)
    assert not found, (verb, found)
"""


def test_help_of_no_verb_waits_for_a_large_library() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("usage: ") > len(VERBS)


def test_unknown_verb_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert module("__main__").main(["trian"]) == 2
    assert "choose one of ingest, validate" in capsys.readouterr().err


def test_what_was_renamed_names_its_successor(capsys: pytest.CaptureFixture[str]) -> None:
    for old, new in module("settings").RENAMED.items():
        assert module("__main__").main([old] if "=" not in old else ["pipeline", old]) == 2
        assert capsys.readouterr().err == f"error: {old} is {new} now\n"


def test_outside_a_project_one_line_says_where_to_run(tmp_path: Path) -> None:
    done = call("split", folder=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: no params.yaml here: run this in the project's root folder\n",
    )


def test_stages_before_their_inputs_say_what_to_run(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("validate", "promote", "evaluate"):
        assert module("__main__").main([verb]) == 2
        assert "run `make pipeline` first" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", ["training.batch_size=0", "model.dropout=7", "optimizer=nonsense"]
)
def test_what_is_wrong_in_an_exploring_run_is_told_without_a_traceback(
    wrong: str, trained: Project
) -> None:
    done = call("train", wrong, folder=trained.folder)
    assert (
        done.returncode != 0
        and "Traceback" not in done.stderr
        and wrong.split(".")[-1].split("=")[0] in done.stderr
    )


@pytest.mark.slow
def test_train_without_pipeline_is_hydras_own_command_line() -> None:
    done = call("train", "--cfg", "job", "optimizer=sgd")
    assert done.returncode == 0, done.stderr
    assert "torch.optim.SGD" in done.stdout
