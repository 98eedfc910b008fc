"""Rows of one SQL query; chosen with `source=sql`."""

import os
import string
from collections.abc import Sequence
from urllib.parse import quote_plus

import pandas as pd
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from . import arranged


def sql(
    url: str,
    query: str,
    label: str,
    id: str | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rows of one SELECT from any database that SQLAlchemy reaches; the other arguments are
    those of `table`. Rows come in the order of their keys, so that a database which returns them in
    another has not changed.
    """
    rows = arranged(read_query(url, query), "the query", label, id, columns)
    return rows.sort_values("id", kind="stable", ignore_index=True) if id else rows


def read_query(url: str, query: str) -> pd.DataFrame:
    """The rows of one SELECT.

    `url` takes secrets from the environment: `$DATABASE_URL`, or
    `postgresql+psycopg://$DB_USER:$DB_PASSWORD@host/db`.
    """
    try:
        address = sqlalchemy.make_url(filled(url))
        if address.password and "$" not in url:
            raise ValueError(
                "data.source.url holds a password: write $NAME there, a variable of the environment"
            )
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool)
        with engine.connect() as connection:
            result = connection.execute(sqlalchemy.text(query))
            names = list(result.keys())
            # Types that may be missing: a float64 in their place would round long whole numbers.
            return pd.DataFrame.from_records(result.all(), columns=names).convert_dtypes()
    except ModuleNotFoundError as error:
        raise ValueError(f"the database needs a driver that is not installed: {error}") from None
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the database did not answer the query: {reason}") from None


def filled(url: str) -> str:
    """The URL with $NAME replaced from the environment, quoted where it is only a part."""
    whole = url.startswith("$") and url.strip("${}").isidentifier()
    values = {name: value if whole else quote_plus(value) for name, value in os.environ.items()}
    try:
        return string.Template(url).substitute(values)
    except KeyError as error:
        raise ValueError(
            f"data.source.url needs the environment variable {error.args[0]}: set it"
        ) from None
