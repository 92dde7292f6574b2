"""The command line: `walkin serve`. Every setting is a flag; flags go before the environment.

Runs in: the supervisor.
"""

import logging
import os
import sys
from importlib.metadata import version

import click

from sandbox import logs
from sandbox.settings import PREFIX, SettingsError
from walkin import settings
from walkin.serve import StartError, run

EXIT_FAILED = 1
EXIT_SETTINGS = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("walkin"), prog_name="walkin")
def main() -> None:
    """Disposable SQLite as a service."""


def _with_settings(command: click.Command) -> click.Command:
    for row in settings.ROWS:
        if not row.secret:
            default = f" [{row.default}]" if row.default else ""
            help_text = f"{row.help}{default}; or {row.variable}"
            command.params.append(click.Option([row.flag], metavar="VALUE", help=help_text))
    return command


@click.command()
def serve(**flags: str | None) -> None:
    """Start the service and run it until it is told to stop.

    Secrets are read from the environment only: everyone on a machine can see a command line.
    """
    chosen = {PREFIX + name.upper(): text for name, text in flags.items() if text}
    environ = {**os.environ, **chosen}
    for name in settings.unknown(environ):
        click.echo(f"{name} is not a setting of walkin and is ignored", err=True)
    try:
        values = settings.from_environ(environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            click.echo(mistake, err=True)
        sys.exit(EXIT_SETTINGS)
    logs.begin(values.log_format, logging.INFO)
    try:
        sys.exit(run(values, environ))
    except StartError as error:
        click.echo(f"walkin cannot start: {error}", err=True)
        sys.exit(EXIT_FAILED)


main.add_command(_with_settings(serve))

if __name__ == "__main__":
    main()
