import json
import os
import shlex
import subprocess
import sys
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
    assert "training.batch_size: 8 → 32" in capsys.readouterr().err
    assert Path("params.yaml").read_text(encoding="utf-8") == experiment
    git("commit", "--all", "--quiet", "--message", "experiment")
    assert "batch_size: 32" in write()
    assert "training.batch_size: 8 → 32" in capsys.readouterr().err


def test_what_is_wrong_is_told_before_it_is_written(repository: Project) -> None:
    before = Path("params.yaml").read_bytes()
    for group in ("optimizer", "experiment", "debug", "training.nonsense"):
        with pytest.raises(ValueError, match="do not compose"):
            write(f"{group}=nonsense")
    with pytest.raises(ValueError, match="seed: "):
        write("seed=abc")
    assert Path("params.yaml").read_bytes() == before
    for text in ("bad: [1", "", "cut", "\0\0\0"):
        Path("params.yaml").write_text(text, encoding="utf-8")
        for read in (repository.settings, write):
            with pytest.raises(ValueError, match=r"`git checkout params\.yaml` brings the last"):
                read()
        assert Path("params.yaml").read_text(encoding="utf-8") == text
    Path("params.yaml").unlink()
    with pytest.raises(ValueError, match=r"is gone: `git checkout params\.yaml`"):
        write()
    Path("configs/config.yaml").write_text("bad: [1", encoding="utf-8")
    with pytest.raises(ValueError, match=r"configs/config\.yaml"):
        write()


def test_overrides_show_what_they_change(
    repository: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write("training.batch_size=8")
    capsys.readouterr()
    write("seed=3")
    assert capsys.readouterr().err == "  seed: 7 → 3\n  training.batch_size: 8 → 32\n"
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("deterministic: true", '"deterministic": true'))
    write("seed=3")
    assert capsys.readouterr().err == ""  # quoting is no difference
    health = yaml.safe_load(text)["health"]
    write(*[f"health.{key}=0.123" for key in health])
    assert capsys.readouterr().err.count("\n") == 1  # a line says how to see them
    module("pipeline").write_params(["seed=4"], diff=True)
    assert capsys.readouterr().err.count("health.") == len(health)


def test_a_second_pipeline_at_the_same_time_changes_nothing(repository: Project) -> None:
    from argparse import Namespace

    from filelock import FileLock

    before = Path("params.yaml").read_bytes()
    Path(".state").mkdir(exist_ok=True)
    with FileLock(".state/pipeline.lock"), pytest.raises(ValueError, match="another pipeline runs"):
        module("pipeline").run(None, Namespace(overrides=["seed=9"], keep=False, diff=False))
    assert Path("params.yaml").read_bytes() == before


def test_what_is_printed_commits_everything(repository: Project) -> None:
    for name in (
        "dvc.yaml",
        "docs/training.md",
        "configs/experiment/mine.yaml",
        "src/package/new.py",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with Path(name).open("a", encoding="utf-8") as file:
            file.write("# changed\n")
    command = module("pipeline").next_commit()
    assert command.endswith("git commit -m 'Update the model'")
    for words in command.split(" && "):
        git(*shlex.split(words)[1:])
    assert module("pipeline").next_commit() is None


def test_a_folder_that_is_a_link_is_told_before_the_work(
    repository: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in ("artifacts", "reports"):
        Path(name).symlink_to(tmp_path_factory.mktemp(name))
        with pytest.raises(ValueError, match=f"{name} is a link"):
            module("pipeline").check_links(repository.settings())
        Path(name).unlink()
    Path("data").rename("elsewhere")
    Path("data").symlink_to("elsewhere")
    with pytest.raises(ValueError, match="data is a link"):
        module("pipeline").check_links(repository.settings())


def test_only_dvc_at_work_holds_its_lock(project: Project) -> None:
    """The numbers of killed processes are gone, of a zombie, or of another program."""
    lock = Path(".dvc/tmp/rwlock")
    lock.parent.mkdir(parents=True)

    def check(number: int) -> bool:
        entry = {"pid": number, "cmd": "dvc repro"}
        lock.write_text(json.dumps({"write": {"/data": entry}}), encoding="utf-8")
        module("pipeline").check_lock()
        return not lock.exists()

    with subprocess.Popen([sys.executable, "-c", "pass", "dvc"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert all(map(check, (zombie.pid, os.getpid(), 4_000_000)))
    wait = [sys.executable, "-c", "input()", "dvc", "push"]
    with subprocess.Popen(wait, stdin=subprocess.PIPE) as busy:
        with pytest.raises(ValueError, match=f"dvc push` works here.*`kill {busy.pid}`"):
            check(busy.pid)
        lock.with_name("lock").write_text(f" {busy.pid}\n", encoding="utf-8")
        for number in (4_000_000, os.getpid()):
            with pytest.raises(ValueError, match=f"dvc push` works here.*`kill {busy.pid}`"):
                check(number)
        lock.unlink()
        with pytest.raises(ValueError, match=f"`kill {busy.pid}`"):
            module("pipeline").check_lock()
        busy.kill()
