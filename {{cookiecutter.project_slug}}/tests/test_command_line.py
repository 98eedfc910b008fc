import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PACKAGE, Project, module
from requests.utils import should_bypass_proxies

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
    assert "'sedd' is no key=value" in error("split", "sedd")
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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nonsense"], "missing EQUAL"),
        (["optimizer=nonsense"], "Could not find 'optimizer/nonsense'"),
        (["traning.batch_size=8"], "traning"),
        (["--nonsense"], "unknown option --nonsense"),
        (["trainer.max_epochs=0"], "max_epochs=0 trains nothing"),
        (["trainer.limit_train_batches=0"], "limit_train_batches=0 trains nothing"),
        (["training.batch_size=lots"], "training.batch_size: "),
        (["-m", "optimizer=adamw,nonsense"], "Could not find 'optimizer/nonsense'"),
        (["-m", "seed=1,2", "training.batch_size=range(0,2)"], "training.batch_size: "),
        (["--multirun", "seed=1,2", "traning.seed=3"], "traning"),
        (["-m", "seed=1,,2"], "is no key=value"),
    ],
)
def test_what_is_wrong_with_a_training_is_one_line_before_it_begins(
    words: list[str], told: str, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = module("__main__").main(["train", *words])
    except SystemExit as end:  # from inside of Hydra
        code = int(end.code or 0)
    printed = capsys.readouterr().err.splitlines()
    assert code == 2 and len(printed) == 1 and told in printed[0]
    assert module("__main__").main(["train", "--pipeline", "trainer.max_epochs=0"]) == 2
    assert "trains nothing" in capsys.readouterr().err


def test_the_values_of_a_multirun_are_those_that_hydra_tries() -> None:
    words = ["optimizer=adamw,sgd", "seed=range(1,4)", "model.width=8", "+x=interval(0,1)"]
    variants = module("params").variants(words)
    assert variants[0] == ["optimizer=adamw", "seed=1", "model.width=8"]
    assert variants[1:] == [
        ["optimizer=sgd", "seed=1", "model.width=8"],
        ["optimizer=adamw", "seed=2", "model.width=8"],
        ["optimizer=adamw", "seed=3", "model.width=8"],
    ]


def test_what_was_renamed_names_its_successor(capsys: pytest.CaptureFixture[str]) -> None:
    for old, new in module("settings").RENAMED.items():
        assert module("__main__").main([old] if "=" not in old else ["pipeline", old]) == 2
        assert capsys.readouterr().err == f"error: {old} is {new} now\n"


@pytest.mark.parametrize(("before", "after"), [("", ",{}"), ("corp", "corp,{}"), ("*", "*")])
def test_this_machine_is_reached_through_no_proxy(
    before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, before)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert module("__main__").main(["nonsense"]) == 2
    assert os.environ["no_proxy"] == after.format("127.0.0.1,localhost,::1")
    for host in ("127.0.0.1:5000", "localhost:5000", "[::1]:5000"):
        assert should_bypass_proxies(f"http://{host}", None)  # as MLflow's client asks
    assert should_bypass_proxies("http://example.com", None) == (before == "*")


def test_a_systems_own_proxies_stay_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    assert module("__main__").main(["nonsense"]) == 2
    assert not [name for name in os.environ if name.lower().endswith("_proxy")]


def test_describe_refuses_the_settings_that_it_would_ignore(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert module("__main__").main(["describe", "seed=8", "data/mine"]) == 2
    assert "takes one path, and no settings" in capsys.readouterr().err
