"""The commands of `python main.py`, one module for each group. See README.md."""

from api.commands.admin import admin
from api.commands.backups import export, import_
from api.commands.check import check
from api.commands.console import refuse, say, settings_or_exit
from api.commands.demo import demo
from api.commands.descriptions import asyncapi, openapi
from api.commands.doctor import doctor
from api.commands.schema import schema

__all__ = [
    "admin",
    "asyncapi",
    "check",
    "demo",
    "doctor",
    "export",
    "import_",
    "openapi",
    "refuse",
    "say",
    "schema",
    "settings_or_exit",
]
