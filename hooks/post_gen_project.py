"""Lays the chosen task, profile, licence and CI system in place, and prints the next commands."""

import json
import shutil
from pathlib import Path

# Whole files that only the full profile has; nothing else imports or needs them.
FULL_ONLY = """
configs/logger/tensorboard.yaml
configs/logger/wandb.yaml
configs/search
configs/source/s3.yaml
configs/source/sql.yaml
configs/trainer/cluster.yaml
configs/trainer/throughput.yaml
deploy/compose.yaml
deploy/grafana
deploy/kubernetes
deploy/prometheus
docs/reproduce.md
docs/scale.md
docs/search.md
src/{{cookiecutter.package_name}}/data/sources/databases.py
src/{{cookiecutter.package_name}}/data/stream.py
src/{{cookiecutter.package_name}}/evaluation/attribution.py
src/{{cookiecutter.package_name}}/evaluation/row_plots.py
src/{{cookiecutter.package_name}}/experiments/gc.py
src/{{cookiecutter.package_name}}/experiments/reproduce.py
src/{{cookiecutter.package_name}}/experiments/resamples.py
src/{{cookiecutter.package_name}}/experiments/study.py
src/{{cookiecutter.package_name}}/experiments/sweep.py
src/{{cookiecutter.package_name}}/mirror.py
src/{{cookiecutter.package_name}}/monitoring/abuse.py
src/{{cookiecutter.package_name}}/monitoring/embedding.py
src/{{cookiecutter.package_name}}/recipes
src/{{cookiecutter.package_name}}/task/show.py
src/{{cookiecutter.package_name}}/task/view.py
src/{{cookiecutter.package_name}}/training/baseline_plots.py
src/{{cookiecutter.package_name}}/training/panel.py
src/{{cookiecutter.package_name}}/training/throughput.py
tests/machinery
""".split()
CI_FILES = {"github": ".github", "gitlab": ".gitlab-ci.yml"}


def remove(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def lay(answers: dict[str, str]) -> None:
    """Arranges the rendered files in the working directory."""
    task = Path("tasks", answers["task"])
    for part in task.glob("*.txt"):  # already in pyproject.toml and configs/config.yaml
        part.unlink()
    shutil.copytree(task, ".", dirs_exist_ok=True)
    shutil.move(Path("licenses", answers["license"]), "LICENSE")
    unwanted = [file for system, file in CI_FILES.items() if system != answers["ci"]]
    for name in ["tasks", "licenses", *unwanted, *(FULL_ONLY if answers["profile"] == "lean" else [])]:
        remove(name)


if __name__ == "__main__":
    answers = json.loads(r"""{{ cookiecutter | tojson }}""")
    lay(answers)
    print(f"""
{answers["project_name"]} is ready in {answers["project_slug"]}/. Next:

    cd {answers["project_slug"]}
    make pipeline     # set up, train, evaluate, package and promote the first model
    make serve        # answer requests, with a page to try it
    make help         # everything else
""")
