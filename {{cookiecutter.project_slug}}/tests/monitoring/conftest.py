"""The fixtures of watched.py."""

import watched

alarm, ask, draw, draw_values, environment = (
    watched.alarm,
    watched.ask,
    watched.draw,
    watched.draw_values,
    watched.environment,
)
feed, identity, kind, labels = watched.feed, watched.identity, watched.kind, watched.labels
project, raw_settings, repository = watched.project, watched.raw_settings, watched.repository
settings, stand_in, table = watched.settings, watched.stand_in, watched.table
