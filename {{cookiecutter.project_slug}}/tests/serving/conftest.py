"""The fixtures of served.py."""

import served

blocked, client, data, kind = served.blocked, served.client, served.data, served.kind
live, project, raw_settings = served.live, served.project, served.raw_settings
release, rows, serve, settings = served.release, served.rows, served.serve, served.settings
start, store, table, wait_for = served.start, served.store, served.table, served.wait_for
