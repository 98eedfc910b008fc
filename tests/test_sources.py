"""Ingest from real servers: PostgreSQL and an S3-compatible store, each started here and stopped in the middle."""

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import BUILD, Baker, Project, environment_python
from tasks import TASKS

pytestmark = [pytest.mark.slow, pytest.mark.deep]
EXTRAS = BUILD.parent / "extras"  # libraries that only these sources need, beside the environment of all tests
COMPOSE = """
import sys
from my_model.pipeline import compose
open("params.yaml", "w", encoding="utf-8").write(compose(sys.argv[1:]))
"""
TO_DATABASE = """
import os, pandas, sqlalchemy
rows = pandas.read_parquet("data/raw/data.parquet").drop(columns="content").sample(frac=1, random_state=1)
files = {name: sqlalchemy.LargeBinary for name in rows.columns if rows[name].dtype == object}
rows.to_sql("measured", sqlalchemy.create_engine(os.environ["DATABASE_URL"]), index=False, dtype=files)
"""
TO_STORE = """
import fsspec, io, pandas
rows = pandas.read_parquet("data/raw/data.parquet").drop(columns="content")
store = fsspec.filesystem("s3")
store.mkdir("bucket")
with store.open("bucket/rows.parquet", "wb") as file:
    rows.to_parquet(file, index=False)
for row in rows.head(40).to_dict("records"):
    content = row.get("image", b"")
    store.pipe_file(f"bucket/files/{row['label']}/{row['id']}.png", content)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{process.args!r} did not start")
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def extras(shared: Project) -> Path:
    """The optional libraries of both sources, installed once into a folder of their own."""
    if not (EXTRAS / "s3fs").exists():
        shared.python("-m", "uv", "pip", "install", "--quiet", "--target", EXTRAS, "s3fs", "psycopg[binary]")
    return EXTRAS


@pytest.fixture(params=TASKS, ids=lambda task: task.name)
def project(request: pytest.FixtureRequest, fresh: Baker, extras: Path) -> Project:
    """A project of each task, with the bundled data in its snapshot."""
    project = fresh(task=request.param.name)
    project.env["PYTHONPATH"] = f"{extras}{os.pathsep}{project.env['PYTHONPATH']}"
    ingest(project)
    return project


def ingest(project: Project, *overrides: str, code: int = 0) -> str:
    """Composes and ingests; what the verb said."""
    project.python("-c", COMPOSE, *overrides)
    done = project.python("-m", "my_model", "ingest", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


def manifest(project: Project) -> str:
    return (project.path / "data" / "raw" / "manifest.json").read_text(encoding="utf-8")


def data_hash(project: Project) -> str:
    return str(json.loads(manifest(project))["files"]["data.parquet"]["sha256"])


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """URL and process of a PostgreSQL server of this test alone; it refuses to run as root."""
    found = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin")),
        *(Path(p).parent for p in [shutil.which("initdb")] if p),
    ]
    if not found:
        pytest.skip("PostgreSQL is not installed")
    folder, port = Path("/tmp") / f"postgres-{os.getpid()}-{tmp_path.name}"[:60], free_port()
    folder.mkdir(mode=0o700)
    user = None
    if os.getuid() == 0:
        user = "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
        shutil.chown(folder, user)
    (folder / "password").write_text("p@ss/word")
    shutil.chown(folder / "password", user or os.getuid())
    options = ["-D", f"{folder}/data", "-U", "me", "-A", "scram-sha-256", "--pwfile", f"{folder}/password", "-N"]
    subprocess.run([str(found[-1] / "initdb"), *options], check=True, capture_output=True, user=user, cwd=folder)
    serve = [str(found[-1] / "postgres"), "-D", f"{folder}/data", "-p", str(port), "-k", "", "-h", "127.0.0.1"]
    process = subprocess.Popen(serve, user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(port, process)
    yield f"postgresql+psycopg://me:p%40ss%2Fword@127.0.0.1:{port}/postgres", process
    stop(process)
    shutil.rmtree(folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    """Environment and process of an S3-compatible server of this test alone."""
    port = free_port()
    with (tmp_path / "store.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    wait_for(port, process)
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    yield {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}, process
    stop(process)


def test_a_query_gives_the_same_snapshot_and_a_dead_database_leaves_it(
    project: Project, postgres: tuple[str, subprocess.Popen[bytes]]
) -> None:
    url, process = postgres
    bundled = data_hash(project)
    project.env["DATABASE_URL"] = url
    project.python("-c", TO_DATABASE)
    query = "data.source.query=SELECT * FROM measured"
    choice = ["source=sql", "data.source.url=$DATABASE_URL", query, "data.source.id=id"]
    ingest(project, *choice)
    assert data_hash(project) == bundled  # types, missing values and order survive the way through the database
    before = manifest(project)
    words = ingest(project, *choice[:2], "data.source.query=SELECT * FROM nothing", code=2)
    assert 'relation "nothing" does not exist' in words and "keeps the last good snapshot" in words
    stop(process)
    words = ingest(project, *choice, code=2)
    assert "the database did not answer" in words and "keeps the last good snapshot" in words
    assert "p@ss" not in words and "p%40ss" not in words
    assert manifest(project) == before


def test_a_store_gives_its_rows_and_a_dead_one_leaves_the_snapshot(
    project: Project, store: tuple[dict[str, str], subprocess.Popen[bytes]]
) -> None:
    environment, process = store
    takes_folders = "folder" in (project.path / "configs" / "source" / "s3.yaml").read_text(encoding="utf-8")
    bundled = data_hash(project)
    project.env.update(environment)
    project.python("-c", TO_STORE)
    choice = ["source=s3", "data.source.path=s3://bucket/" + ("files" if takes_folders else "rows.parquet")]
    ingest(project, *choice, *([] if takes_folders else ["data.source.id=id"]))
    rows = json.loads(manifest(project))["steps"][-1]["rows"]
    assert rows == 40 if takes_folders else data_hash(project) == bundled
    before = manifest(project)
    words = ingest(project, "source=s3", "data.source.path=s3://bucket/nothing.parquet", code=2)
    assert "s3://bucket/nothing.parquet cannot be read" in words and "keeps the last good snapshot" in words
    stop(process)
    words = ingest(project, *choice, code=2)
    assert "cannot be read" in words and "keeps the last good snapshot" in words
    assert manifest(project) == before


def test_a_store_without_its_library_says_what_to_install(shared: Project, fresh: Baker) -> None:
    project = fresh()
    assert environment_python().exists()
    words = ingest(project, "source=s3", "data.source.path=s3://bucket/files", code=2)
    assert "Install s3fs" in words and not (project.path / "data" / "raw" / "manifest.json").exists()
