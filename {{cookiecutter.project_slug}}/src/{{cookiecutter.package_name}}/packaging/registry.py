"""Model versions and their aliases in MLflow's registry, and the audit log of every decision."""

import json
import os
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tracking
from ..provenance import head, user
from ..settings import Settings
from ..task.features import Features, instance_schema
from .bundle import Bundle

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
# What MLflow runs to have the model.
LOADER = """from mlflow.models import set_model

from {package}.serving.pyfunc import Model

set_model(Model())
"""
# the best model ever promoted, which bounds what a series of champions may lose together
BEST = "best"


def by_alias(settings: Settings, alias: str) -> "ModelVersion | None":
    """The version that holds an alias, or None where nothing does."""
    from mlflow.exceptions import MlflowException

    try:
        return tracking.client(settings).get_model_version_by_alias(
            settings.tracking.registered_model, alias
        )
    except MlflowException as error:
        # MLflow's answers to an unknown model and to an unknown alias.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def point(settings: Settings, alias: str, version: "ModelVersion | None") -> None:
    """Moves an alias to a version, or takes it away."""
    client, name = tracking.client(settings), settings.tracking.registered_model
    if version:
        client.set_registered_model_alias(name, alias, version.version)
    elif by_alias(settings, alias):
        client.delete_registered_model_alias(name, alias)


def register(settings: Settings, bundle: Bundle) -> "ModelVersion":
    """A new version of the registered model, loadable with `mlflow.pyfunc`, tagged with the bundle
    it stands for.
    """
    import mlflow
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    name, card = settings.tracking.registered_model, bundle.card
    item = instance_schema(Features.model_validate(card.features))
    # What a column holds is judged by the model itself: pandas has whole numbers in their place,
    # and other types where some are missing.
    anything: Any = AnyType
    columns: list[Any] = [
        ColSpec(anything(), name, name in item["required"]) for name in item["properties"]
    ]
    package, loader = Path(__file__).parents[1], settings.paths.state / "loader.py"
    staged = loader.with_name("bundle")  # MLflow follows no links, such as those of DVC's cache
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(bundle.folder, staged, copy_function=shutil.copyfile)
    loader.write_text(LOADER.format(package=package.name), encoding="utf-8")
    with (
        tracking.current(settings, "register") as run,
        mlflow.start_run(run_id=run.id),
        warnings.catch_warnings(),
    ):
        # It asks for examples, which may be of persons.
        warnings.filterwarnings("ignore", ".*An input example was not provided")
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(loader),
            signature=mlflow.models.ModelSignature(Schema(columns)),
            artifacts={"bundle": str(staged)},
            code_paths=[str(package)],  # it is to be loaded where the project is not installed
            # Asked for, not guessed: that takes minutes.
            pip_requirements=[f"{name}=={number}" for name, number in card.dependencies.items()],
            metadata={"identity": bundle.identity},
        )
        tracking.upload(run.client, run.id, bundle.folder, Path("bundles", bundle.identity[:12]))
        if not run.client.search_registered_models(f"name = '{name}'"):
            run.client.create_registered_model(name)
        tags = card.model_dump(include={"code", "data", "candidate"})
        return run.client.create_model_version(
            name,
            logged.model_uri,
            run.id,
            tags={**tags, "identity": bundle.identity},
            model_id=logged.model_id,
        )


def find(settings: Settings, identity: str) -> "ModelVersion | None":
    """The version that stands for a bundle, None where it was never registered."""
    query = f"name = '{settings.tracking.registered_model}' and tags.identity = '{identity}'"
    versions = tracking.client(settings).search_model_versions(query, max_results=1)
    return versions[0] if versions else None


def download(settings: Settings, version: "ModelVersion", folder: Path) -> Bundle:
    """Fetches the bundle of a version into an empty folder. Raises ValueError where it is not the
    registered one.
    """
    identity = version.tags["identity"]
    folder.mkdir(parents=True, exist_ok=True)
    assert version.run_id is not None
    path = tracking.client(settings).download_artifacts(
        version.run_id, f"bundles/{identity[:12]}", str(folder)
    )
    bundle = Bundle.load(Path(path))
    if bundle.identity != identity:
        raise ValueError(f"the tracker's bundle of version {version.version} is another one")
    return bundle


def label(version: "ModelVersion") -> str:
    """Name of a version in live/ and in stored predictions, such as 3-1a2b3c4d."""
    return f"{version.version}-{version.tags['identity'][:8]}"


def audit(
    settings: Settings,
    action: str,
    version: "ModelVersion",
    previous: "ModelVersion | None",
    why: list[str],
) -> None:
    """Appends one decision to the audit log, synced to disk, and notes it on the model version.

    A decision that only repeats the last one, as each `make pipeline` on a refused bundle does,
    adds nothing.
    """
    decision: dict[str, Any] = {
        "action": action,
        "version": label(version),
        "identity": version.tags["identity"],
        "previous": label(previous) if previous else None,
        "why": why,
    }
    if decisions(settings)[-1:] and decision.items() <= decisions(settings)[-1].items():
        return
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **decision,
        "run_id": version.run_id,
        "code": version.tags["code"],
        "data": version.tags["data"],
        "commit": head() or None,
        "by": user(),
    }
    settings.paths.audit.parent.mkdir(parents=True, exist_ok=True)
    with settings.paths.audit.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())
    tracking.client(settings).set_model_version_tag(
        version.name, version.version, "decision", f"{action}: {'; '.join(why)}"[:4000]
    )


def rolled_back(settings: Settings, identity: str) -> str | None:
    """Why the last rollback took this very bundle out of service; None where it did not, or it was
    promoted since.
    """
    reason = None
    for record in decisions(settings):
        if record["action"] == "promote" and record["identity"] == identity:
            reason = None
        if record["action"] == "rollback" and record["previous"].endswith(f"-{identity[:8]}"):
            reason = f"rolled back at {record['time']}: {'; '.join(record['why'])}"
    return reason


def champion_before(settings: Settings, champion: "ModelVersion") -> str | None:
    """Label of the champion before this one. Only promotions count: a rollback's own record would
    lead back to the model that was taken out.
    """
    promoted = [d for d in decisions(settings) if d["action"] == "promote"]
    before = [d["previous"] for d in promoted if d["version"] == label(champion)]
    return before[-1] if before else None


def decisions(settings: Settings) -> list[dict[str, Any]]:
    """The audit log, oldest first."""
    path = settings.paths.audit
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line]
