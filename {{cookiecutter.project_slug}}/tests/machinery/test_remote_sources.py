import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from harness import module

sources, databases = module("data.sources"), module("data.sources.databases")
CSV = 'key,city,age,zip,left\n7,Bonn,41.5,007,1\n8,"a, ""b""",,010,0\n9,,30,,\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.csv").write_text(CSV, encoding="utf-8")
    return tmp_path


def values(rows: pd.DataFrame) -> list[list[Any]]:
    return [
        [None if pd.isna(value) else value for value in row]
        for row in rows.astype(object).to_numpy().tolist()
    ]


class Web(BaseHTTPRequestHandler):
    """Answers /mine.csv whole, /short.csv cut off, /broken.csv with an error, and the rest with
    404.
    """

    def do_GET(self) -> None:
        known = {"/mine.csv": 200, "/short.csv": 200, "/broken.csv": 503}
        body = CSV.encode() if self.path in known else b"<html>"
        self.send_response(known.get(self.path, 404))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:20] if self.path == "/short.csv" else body)

    def do_HEAD(self) -> None:
        self.send_error(405)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.row("D2")
def test_a_url_is_read_where_the_checksum_fits(web: str, folder: Path) -> None:
    digest = hashlib.sha256(CSV.encode()).hexdigest()
    wanted = values(sources.table("mine.csv", label="left", id="key"))
    assert (
        values(sources.table(f"{web}/mine.csv", label="left", id="key", sha256=digest.upper()))
        == wanted
    )
    with pytest.raises(ValueError, match="has SHA-256"):
        sources.table(f"{web}/mine.csv", label="left", sha256="0" * 64)


@pytest.mark.row("D2")
@pytest.mark.parametrize("name", ["missing.csv", "short.csv", "broken.csv"])
def test_an_answer_that_is_not_the_file_is_an_error(name: str, web: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be read"):
        sources.table(f"{web}/{name}", label="left")


@pytest.fixture
def database(folder: Path) -> str:
    with sqlite3.connect("my.db") as connection:
        connection.execute(
            "CREATE TABLE people (key INTEGER, city TEXT, age REAL, photo BLOB, left INTEGER)"
        )
        people = [(9, None, 30, b"\x00", None), (7, "Bonn", 41.5, b"\x01", 1)]
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?)", people)
    connection.close()
    return "sqlite:///my.db"


@pytest.mark.row("D2")
def test_a_query_gives_rows_in_the_order_of_their_keys(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    rows = databases.sql(
        "$DATABASE_URL", "SELECT * FROM people WHERE age > 10", label="left", id="key"
    )
    assert values(rows) == [[7, "Bonn", 41.5, b"\x01", 1], [9, None, 30, b"\x00", None]]


def test_what_a_database_refuses_is_said_in_one_line_without_secrets(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "p@ss/word")
    for url, query, words in (
        (database, "SELECT * FROM nobody", "no such table: nobody"),
        ("sqlite:///none/my.db", "SELECT 1", "unable to open"),
        ("nonsense", "SELECT 1", "Could not parse"),
        ("$NO_SUCH_VARIABLE", "SELECT 1", "needs the environment variable NO_SUCH_VARIABLE"),
        ("postgresql://me:p%40ss@127.0.0.1:9/db", "SELECT 1", "holds a password: write"),
        ("mysql+nodriver://me:$DB_PASSWORD@127.0.0.1/db", "SELECT 1", "Can't load plugin"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            databases.sql(url, query, label="left")
        assert (
            "\n" not in str(caught.value)
            and "p@ss" not in str(caught.value)
            and "p%40" not in str(caught.value)
        )


def test_a_password_is_quoted_where_it_is_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "p@ss/word")
    assert (
        databases.filled("postgresql://me:$DB_PASSWORD@host/db")
        == "postgresql://me:p%40ss%2Fword@host/db"
    )
