"""The command that prints the JSON Schemas of what dyetrace writes and prints."""

from __future__ import annotations

import click

from detect.cli.results import json_option, print_result


@click.command()
@click.argument("name", required=False)
@json_option
def schema(name: str | None, as_json: bool) -> None:
    """Print the JSON Schema NAME; without NAME, print the names of all schemas. Those of documents (detection, scan,
    spec, ...) describe files and reports, "result-" and a command's words what this command prints with --json.

    \b
    Example: dyetrace schema
             dyetrace schema scan > scan-schema.json
    """
    from detect.cli.json_schemas import encode_schema, json_schema, schema_names
    from detect.records.results import SchemaNames

    if name is not None:
        click.echo(encode_schema(json_schema(name)).decode(), nl=False)
    elif as_json:
        print_result(SchemaNames(names=schema_names()))
    else:
        click.echo("\n".join(schema_names()))
