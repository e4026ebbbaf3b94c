"""``petaseg init``: write a commented example of a run file, or of a training file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config.base import Table
    from pipeline.storage import ObjectStore

TRAINING_SCHEMA = "train.schema.json"
EPILOG = """Examples:

petaseg init run.yaml --image my_volume.zarr

petaseg init run.yaml --affinities my_affinities.zarr

petaseg init run.yaml --image my_volume.zarr --model models/first

petaseg init train.yaml --image my_volume.zarr --labels my_labels.zarr"""

FileArgument = Annotated[str, typer.Argument(help="File to write: a path or a URL.")]
ImageOption = Annotated[str | None, typer.Option(help="Volume to segment, or to train on; image.zarr if left out.")]
LabelsOption = Annotated[
    str | None, typer.Option(help="Labels of the image: write a training file, with parts and patches that fit.")
]
AffinitiesOption = Annotated[
    str | None, typer.Option(help="Affinities to segment, predicted by any program, instead of an image.")
]
ModelOption = Annotated[
    str | None, typer.Option(help="Model of the run: a bundled name, or the folder or card of your own.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def init(
        file: FileArgument = "run.yaml",
        image: ImageOption = None,
        labels: LabelsOption = None,
        affinities: AffinitiesOption = None,
        model: ModelOption = None,
        schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a run file instead.")] = False,
        keys: Annotated[bool, typer.Option("--keys", help="Print a page of all keys instead.")] = False,
        force: Annotated[bool, typer.Option("--force", help="Replace an existing file and its schema.")] = False,
    ) -> None:
        """Write a commented run file (with --labels, a training file), and its JSON schema for editors."""
        from pipeline.config.reading import json_schema
        from pipeline.errors import ConfigError

        names = {"FILE": file, "--image": image, "--labels": labels, "--affinities": affinities, "--model": model}
        for name, text in names.items():
            _check_name(name, text)
        if schema and keys:
            raise ConfigError("--schema and --keys are both given, and each prints a page of its own: leave one out")
        if schema:
            typer.echo(json.dumps(json_schema(), indent=2))
            return
        if keys:
            from pipeline.config.reference import markdown

            typer.echo(markdown(), nl=False)
            return
        _refuse_together(names)
        if labels is not None:
            lines = write_training_example(file, image or "image.zarr", labels, force=force)
        else:
            lines = write_example(file, image, affinities=affinities, model=model, force=force)
        for line in lines:
            typer.echo(line)


def _check_name(option: str, text: str | None) -> None:
    """Refuse names that no file can hold on one line."""
    from pipeline.config.base import check_path
    from pipeline.errors import ConfigError

    try:
        if text is not None:
            check_path(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _refuse_together(names: dict[str, str | None]) -> None:
    """Refuse options that belong to different files."""
    from pipeline.errors import ConfigError

    for one, other in (
        ("--image", "--affinities"),
        ("--labels", "--affinities"),
        ("--labels", "--model"),
        ("--affinities", "--model"),
    ):
        if names[one] is not None and names[other] is not None:
            raise ConfigError(f"{one} and {other} are both given, and no file has both: leave one of them out")


def write_example(
    file: str | Path,
    image: str | None,
    *,
    affinities: str | None = None,
    model: str | None = None,
    force: bool = False,
) -> list[str]:
    """Write a run file and its schema beside it; returns the lines to print.

    ``ConfigError`` if the file is there, or if no run could use the input.
    """
    from pipeline.config.run_file import RunConfig
    from pipeline.runs.example import SCHEMA, Wanted, example
    from pipeline.runs.hints import command

    store, key = _refuse_existing(file, force)
    found = example(Wanted(str(file), image, affinities, model))
    lines = _write(store, key, found.text, SCHEMA, RunConfig, force)
    if found.unread:
        lines.append(f"its input was not checked, since it cannot be opened yet: {found.unread}")
    return [f"wrote {file}; next: {command('plan', str(file))}, then {command('run', str(file))}", *lines]


def write_training_example(file: str | Path, image: str, labels: str, *, force: bool = False) -> list[str]:
    """Write a training file and its schema beside it, for volumes that exist; returns the lines to print."""
    from pipeline.errors import ConfigError
    from pipeline.runs.hints import command
    from pipeline.runs.origin import require_finished
    from pipeline.storage import local_path
    from pipeline.training.config import TrainConfig
    from pipeline.training.example import checked_example

    if local_path(str(file)) is None:
        raise ConfigError(f"FILE is {file}; a training file lies on this machine, where it is read: name a path")
    store, key = _refuse_existing(file, force)
    require_finished(image)
    require_finished(labels)
    places = (from_start(str(file), place) for place in (image, labels))
    text = checked_example(*places, file=str(file), schema=TRAINING_SCHEMA)
    lines = _write(store, key, text, TRAINING_SCHEMA, TrainConfig, force)
    preview = command("train", str(file), (), "--preview")
    return [f"wrote {file}; next: {preview}, then {command('train', str(file))}", *lines]


def from_start(file: str, place: str) -> str:
    """A path as a training file must name it: as typed if the file lies in the present folder, else an absolute one."""
    from pipeline.storage import absolute

    here = Path(file).absolute().parent.resolve() == Path.cwd().resolve()
    return place if here else absolute(place, ".")


def _refuse_existing(file: str | Path, force: bool) -> tuple[ObjectStore, str]:
    """The store and key of the file; ``ConfigError`` if it is there and may not be replaced."""
    from pipeline.errors import ConfigError
    from pipeline.storage import store_of

    store, key = store_of(file)
    if store.exists(key) and not force:
        raise ConfigError(f"{file} is there already; give another name, or --force to replace it")
    if force and (present := store.get_or_none(key)) and not _is_configuration(present):
        raise ConfigError(
            f"{file} is there already, and it is no run file and no training file, so --force does not replace it: "
            "give another name, or delete it yourself"
        )
    return store, key


def _is_configuration(data: bytes) -> bool:
    """True for a file with the keys of a run file or a training file, or with comments alone."""
    from pipeline.config.kinds import kind_of
    from pipeline.config.strict_yaml import parse_yaml
    from pipeline.errors import ConfigError

    try:
        found = parse_yaml(data, "the file")
    except ConfigError:
        return b"run_directory:" in data or b"\nvolumes:" in data  # somebody's, with a mistake in it
    return found is None or (isinstance(found, dict) and kind_of(found) in ("RunConfig", "TrainConfig"))


def _write(store: ObjectStore, key: str, text: str, schema: str, model: type[Table], force: bool) -> list[str]:
    """Write the schema and then the file; returns a line if the schema replaced another one.

    ``ConfigError`` if a file of the schema's name is there that is no schema of petaseg.
    """
    from pipeline.config.reading import json_schema
    from pipeline.errors import ConfigError

    data = (json.dumps(json_schema(model), indent=2) + "\n").encode()
    present = store.get_or_none(schema)
    if present is not None and not force and not _is_schema(present, model):
        raise ConfigError(
            f"{store.url}/{schema} is there already, and petaseg did not write it; the schema for editors gets this "
            "name: move your file away, or give --force to replace it"
        )
    store.put(schema, data)
    store.put(key, text.encode())
    return [] if present in (None, data) else [f"replaced {store.url}/{schema}, which was another one"]


def _is_schema(data: bytes, model: type[Table]) -> bool:
    """True if petaseg, of any version, wrote this schema for editors."""
    try:
        found = json.loads(data)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("title") == model.__name__ and "properties" in found
