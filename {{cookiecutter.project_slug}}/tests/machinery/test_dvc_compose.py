import subprocess
from pathlib import Path

from harness import Project, dvc, module


def test_dvc_composes_the_same_bytes(project: Project) -> None:
    overrides = ["optimizer=sgd", "training.batch_size=8"]
    composed = module("pipeline").compose(overrides)
    stage = "stages:\n  show:\n    cmd: python -c 'print()'\n    params: [seed]\n"
    Path("dvc.yaml").write_text(stage, encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], check=True)
    dvc("init", "--quiet", check=True)
    dvc("config", "hydra.enabled", "true", check=True)
    dvc("config", "hydra.config_dir", "configs", check=True)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", *author, "commit", "--quiet", "-m", "first"], check=True)
    dvc("exp", "run", "-S", overrides[0], "-S", overrides[1], check=True)
    assert Path("params.yaml").read_text(encoding="utf-8") == composed
