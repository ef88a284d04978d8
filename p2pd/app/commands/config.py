"""`p2pd config`, and the seeder's: check a file, show what holds, print the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from p2pd.app import cli
from p2pd.app.commands.output import Json, new_group, show_json, show_table
from p2pd.app.config import NodeConfig
from p2pd.app.effective import Setting, effective
from p2pd.app.reference import commented_defaults, toml_key, toml_value
from p2pd.app.settings import load_document

__all__ = ["config_group", "register"]


def register(app: typer.Typer) -> None:
    app.add_typer(config_group(cli.DEFAULT_CONFIG, NodeConfig), name="config")


def config_group(default: str, cls: type[Any]) -> typer.Typer:
    """The commands for one daemon: `default` is its file's path, `cls` its configuration class."""
    group = new_group("Check, show and explain the configuration.")
    # Not Annotated: typer evaluates that in the module, where these are not known.
    named = typer.Option(None, "--config", metavar="FILE", help=f"Default: {default} if it is there.")
    given = typer.Argument(default, metavar="[FILE]", help="TOML configuration.")

    @group.command()
    def check(
        file: str = given,
        as_json: Json = False,
    ) -> None:
        """Read a configuration without starting anything; say what is wrong, and what may be.

        A mistake is one line with file and line, and exit status 2. Run it before a restart.
        """
        is_there = file != default or Path(file).exists()
        config = load_document(Path(file)).read(cls) if is_there else cls()
        warnings = list(config.warnings()) if hasattr(config, "warnings") else []
        if as_json:
            show_json({"file": file, "warnings": warnings})
            return
        for warning in warnings:
            print(f"{file}: warning: {warning}")
        print(f"{file}: {'valid' if is_there else 'not there, so the defaults hold'}")

    @group.command()
    def show(file: str | None = named, as_json: Json = False) -> None:
        """Show every key with the value that holds, and the line where it was written.

        It shows what the daemon would start with now; one that runs may have read the file before a change.
        """
        path = Path(file or default)
        document = load_document(path) if file is not None or path.exists() else None
        if document is not None:
            document.read(cls)
        settings = list(effective(cls, document))
        if as_json:
            show_json([_data(setting) for setting in settings])
            return
        rows = [[_dotted(setting), toml_value(setting.value), _source(setting)] for setting in settings]
        show_table(["KEY", "VALUE", "FROM"], rows, "nothing can be configured")

    @group.command()
    def defaults() -> None:
        """Print a whole configuration file: every key, explained, commented out, at its default."""
        print(commented_defaults(cls, default), end="")

    return group


def _dotted(setting: Setting) -> str:
    return ".".join(map(toml_key, setting.path))


def _source(setting: Setting) -> str:
    if setting.file is None:
        return "default"
    return f"{setting.file}:{setting.line}" if setting.line else setting.file


def _data(setting: Setting) -> dict[str, object]:
    return {
        "key": _dotted(setting),
        "value": setting.value,
        "source": "default" if setting.file is None else "file",
        "file": setting.file,
        "line": setting.line,
    }
