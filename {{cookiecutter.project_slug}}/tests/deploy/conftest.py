"""The fixtures of linters.py."""

import linters

deploy, healthy, tool = linters.deploy, linters.healthy, linters.tool
