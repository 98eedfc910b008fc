import subprocess
from pathlib import Path

import pytest
import yaml
from harness import PACKAGE, ROOT, Project, module


def git(*arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=test", "-c", "user.email=test@example.com", *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(project: Project) -> Project:
    git("init", "--quiet", "-b", "main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    return project


def write(*overrides: str) -> str:
    module("pipeline").write_params(list(overrides))
    return Path("params.yaml").read_text(encoding="utf-8")


def test_stages_depend_on_code_and_keys_that_exist() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_bytes())
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_bytes())["stages"].items():
        source = [d for d in stage["deps"] if d.startswith("src/")]
        assert f"src/{PACKAGE}/settings.py" in source, name
        assert all((ROOT / d).exists() for d in source), name
        for key in stage["params"]:
            section, _, last = key.rpartition(".")
            assert last in (module("checklist").at(params, section) if section else params), key
            assert key.partition(".")[0] not in ("serving", "monitoring", "logger", "tracking")


def edit(old: str, new: str) -> None:
    path = Path("configs/config.yaml")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_edited_configs_are_composed_again_and_again(repository: Project) -> None:
    write()
    edit("batch_size: 32", "batch_size: 16")
    assert "batch_size: 16" in write()
    edit("batch_size: 16", "batch_size: 8")
    assert "batch_size: 8" in write()  # what git sees as changed came from configs/ alone


def test_an_experiment_is_not_undone_silently(
    repository: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    experiment = write("training.batch_size=8")
    with pytest.raises(ValueError, match="uncommitted experiment"):
        write()
    assert "-  batch_size: 8" in capsys.readouterr().err
    assert Path("params.yaml").read_text(encoding="utf-8") == experiment
    write("seed=3")
    assert "-  batch_size: 8" in capsys.readouterr().err
    write("training.batch_size=8")
    git("commit", "--all", "--quiet", "--message", "experiment")
    assert "batch_size: 32" in write()
    assert "-  batch_size: 8" in capsys.readouterr().err


def test_what_is_wrong_is_told_before_it_is_written(repository: Project) -> None:
    before = Path("params.yaml").read_bytes()
    for group in ("optimizer", "experiment", "debug", "training.nonsense"):
        with pytest.raises(ValueError, match="do not compose"):
            write(f"{group}=nonsense")
    with pytest.raises(ValueError, match="seed: "):
        write("seed=abc")
    assert Path("params.yaml").read_bytes() == before
    for text, message in (("bad: [1", r"params\.yaml"), ("", "is empty")):
        Path("params.yaml").write_text(text, encoding="utf-8")
        with pytest.raises((ValueError, yaml.YAMLError), match=message):
            repository.settings()
    Path("configs/config.yaml").write_text("bad: [1", encoding="utf-8")
    with pytest.raises(ValueError, match=r"configs/config\.yaml"):
        write()


def test_a_second_pipeline_at_the_same_time_changes_nothing(repository: Project) -> None:
    from argparse import Namespace

    from filelock import FileLock

    before = Path("params.yaml").read_bytes()
    Path(".state").mkdir(exist_ok=True)
    with FileLock(".state/pipeline.lock"), pytest.raises(ValueError, match="another pipeline runs"):
        module("pipeline").run(None, Namespace(overrides=["seed=9"], keep=False))
    assert Path("params.yaml").read_bytes() == before
