import subprocess
import sys
from pathlib import Path

import pytest
from harness import PACKAGE, Project, module

VERBS = list(filter(module("__main__").is_here, module("__main__").VERBS))


def call(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", PACKAGE, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


HELP = f"""
import contextlib, sys, {PACKAGE}.__main__ as m
for verb in (*filter(m.is_here, m.VERBS), None):
    with contextlib.suppress(SystemExit):
        m.main([verb, "--help"] if verb else ["--help"])
    large = "torch lightning mlflow pandas pyarrow matplotlib optuna dvc".split()
    loaded = set(large) & set(sys.modules)
    assert not loaded, (verb, loaded)
"""


def test_every_verb_explains_itself_without_waiting_for_a_large_library() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert all(text.count(module("__main__").VERBS[verb][1]) == 2 for verb in VERBS)


def test_what_cannot_be_done_is_one_line_with_the_remedy(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: str) -> str:
        assert module("__main__").main([*words]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line[0] != "✗"]
        assert len(lines) == 1
        return str(lines[0])

    assert "choose one of describe, ingest" in error("trian")
    for verb in ("validate", "promote", "evaluate"):
        assert "run `make pipeline` first" in error(verb)
    assert "unrecognized arguments: --bogus; `python -m" in error("split", "--bogus")
    assert "seed: Input should be a valid integer" in error("split", "seed=abc")
    assert "missing EQUAL" in error("split", "sedd")
    assert "required: INPUT, OUTPUT" in error("batch")
    Path("params.yaml").unlink()
    line = "error: no params.yaml here: run this in the project's root folder"
    assert error("split") == line


@pytest.mark.slow
def test_train_without_pipeline_is_hydras_own_command_line(trained: Project) -> None:
    done = call("train", "--cfg", "job", "optimizer=sgd", folder=trained.folder)
    assert done.returncode == 0, done.stderr
    assert "torch.optim.SGD" in done.stdout
    for wrong in ("batch_size", "dropout", "optimizer"):
        key = {"batch_size": "training.batch_size=0", "dropout": "model.dropout=7"}
        done = call("train", key.get(wrong, "optimizer=nonsense"), folder=trained.folder)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr and wrong in done.stderr


def test_what_was_renamed_names_its_successor(capsys: pytest.CaptureFixture[str]) -> None:
    for old, new in module("settings").RENAMED.items():
        assert module("__main__").main([old] if "=" not in old else ["pipeline", old]) == 2
        assert capsys.readouterr().err == f"error: {old} is {new} now\n"
