"""The fixtures of linters.py."""

import linters

deploy, tool = linters.deploy, linters.tool
