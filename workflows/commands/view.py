"""``petaseg view``: look at a run, or at volumes, in Neuroglancer on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.commands.options import named, parse_vector
from workflows.terminal.starting import starting

if TYPE_CHECKING:
    from pipeline.geometry import Vec
    from pipeline.runs.run import Run
    from pipeline.viewing.layers import Layer


POINTS = 1000
"""Suspects that are shown as points, at most."""
BrowserOption = Annotated[
    bool, typer.Option("--browser/--no-browser", help="Open the page, or only print its address.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Examples: petaseg view runs/first; petaseg view image.zarr labels.zarr --screenshot look.png")
    def view(
        what: Annotated[
            list[str],
            typer.Argument(metavar="RUN | VOLUME ...", help="A run, or volumes of any format."),
        ],
        at: Annotated[
            str | None, typer.Option(metavar="Z,Y,X", help="The voxel to look at; the middle, or where you were last.")
        ] = None,
        suspect: Annotated[
            int | None,
            typer.Option(min=1, metavar="RANK", help="Look at this place of `petaseg suspects`."),
        ] = None,
        segments: Annotated[
            list[int] | None, typer.Option("--segment", min=1, help="Show this segment alone in 3D; repeatable.")
        ] = None,
        labels: Annotated[
            list[str] | None,
            typer.Option("--labels", metavar="VOLUME", help="One more volume, of labels of any type; repeatable."),
        ] = None,
        layout: Annotated[
            str | None, typer.Option(metavar="NAME", help="4panel, 3d, xy, xz or yz; 4panel, or as you left it.")
        ] = None,
        edit: Annotated[
            bool, typer.Option("--edit", help="Add layers to draw merges and splits in, for petaseg edit --state.")
        ] = False,
        fresh: Annotated[bool, typer.Option("--fresh", help="Forget where you were last in this run.")] = False,
        screenshot: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Draw into a PNG, without a screen, and end.")
        ] = None,
        size: Annotated[
            str, typer.Option(metavar="WIDTHxHEIGHT", help="Pixels of the picture, with --screenshot.")
        ] = "1600x1000",
        port: Annotated[
            int, typer.Option(min=0, max=65535, help="Port of the layers on 127.0.0.1; 0 for any free one.")
        ] = 0,
        browser: BrowserOption = True,
    ) -> None:
        """Show image, heads, supervoxels, segmentation and ground truth as layers of Neuroglancer, until Ctrl-C.

        Nothing leaves this machine: the page and the voxels are served on the loopback address, and voxels are read as
        the page asks for them. Where you looked is kept in the run directory (view.json).
        """
        starting(f"opening {what[0]}")
        pixels = _pixels(size)
        place = None if at is None else _voxel(at)
        run, layers = _layers([named(each) for each in what], labels or ())
        if edit and run is None:
            raise typer.BadParameter("--edit is about the neurons of a run: name one.")
        look = Look(place, tuple(segments or ()), layout, fresh, edit=edit)
        look = look if suspect is None else look.at_suspect(run, suspect)
        show(run, layers, look, screenshot, pixels, port, browser)


def _pixels(text: str) -> tuple[int, int]:
    from pipeline.errors import ConfigError

    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 16 <= int(width) <= 8192 and 16 <= int(height) <= 8192):
        raise ConfigError(f"--size is {text!r}; it must be WIDTHxHEIGHT, two whole numbers from 16 to 8192")
    return int(width), int(height)


def _voxel(text: str) -> Vec:
    from pipeline.geometry import Vec

    return Vec(*parse_vector(text, "--at"))


def _layers(what: Sequence[str], labels: Sequence[str]) -> tuple[Run | None, list[Layer]]:
    """The layers of a run, or of volumes; a run may have volumes beside it."""
    from pipeline.errors import ConfigError
    from pipeline.runs.run import Run
    from pipeline.viewing.layers import layer_of_volume, layers_of_run

    run = Run.open(what[0]) if _is_run(what[0]) else None
    layers = [] if run is None else layers_of_run(run)
    if run is not None and not layers:
        raise ConfigError(f"nothing of {what[0]} is stored yet; compute it with: {run.command}")
    for url in what[0 if run is None else 1 :]:
        layers.append(layer_of_volume(url, _name(url, layers)))
    for url in labels:
        layers.append(layer_of_volume(url, _name(url, layers), labels=True))
    return run, layers


def _is_run(place: str) -> bool:
    """True for a run file, and for a folder or an address that holds one."""
    from pipeline.storage import ObjectStore, local_path

    local = local_path(place)
    if place.endswith((".yaml", ".yml")):
        return True
    if local is not None and not local.is_dir():
        return False
    return ObjectStore(place).exists("run.yaml")


def _name(url: str, layers: Sequence[Layer]) -> str:
    """A name for a layer that no other has, from the last part of its address."""
    import re

    name = re.sub(r"[^\w.-]+", "-", url.rstrip("/").rsplit("/", 1)[-1]).strip("-") or "volume"
    taken = {layer.name for layer in layers}
    return next(each for n in range(len(taken) + 1) if (each := f"{name}-{n}" if n else name) not in taken)


@dataclass(frozen=True)
class Look:
    """What the user wants to see at first; nothing of it: where this user was last."""

    place: Vec | None = None
    segments: tuple[int, ...] = ()
    layout: str | None = None
    fresh: bool = False
    near: bool = False
    """A place that is looked at closely."""
    edit: bool = field(default=False, compare=False)
    """Layers to draw edits in are added, also to what this user saw last."""

    def __post_init__(self) -> None:
        from pipeline.errors import ConfigError
        from pipeline.viewing.state import LAYOUTS

        if self.layout is not None and self.layout not in LAYOUTS:
            raise ConfigError(f"--layout is {self.layout!r}; it must be one of {', '.join(LAYOUTS)}")

    def state(self, run: Run | None, layers: Sequence[Layer], server: str) -> dict[str, Any]:
        """The first state of the viewer."""
        from pipeline.viewing.state import stored_state, with_edit_layers

        kept = stored_state(run.store, server) if run is not None and self == Look() else None
        state = self._new_state(run, layers, server) if kept is None else kept
        return with_edit_layers(state) if self.edit else state

    def _new_state(self, run: Run | None, layers: Sequence[Layer], server: str) -> dict[str, Any]:
        """The state of a viewer that nobody has left."""
        from pipeline.suspects.listing import read_list
        from pipeline.viewing.state import state_of
        from pipeline.viewing.suspects import layers_of_suspects, looking_at

        state = state_of(layers, server, self.place, self.layout or "4panel")
        state = looking_at(state) if self.near else state
        if run is not None:
            state["layers"] += layers_of_suspects(read_list(run)[:POINTS], run.layout.resolution_nm)
        return _selecting(state, self.segments)

    def at_suspect(self, run: Run | None, rank: int) -> Look:
        """The look at a place of the list, with its segments; ``ConfigError`` without a list or such a place."""
        from pipeline.errors import ConfigError
        from pipeline.suspects.listing import suspect_at

        if run is None:
            raise ConfigError(f"--suspect {rank} is a place in a run, and none is shown: name its run directory first")
        if self.place is not None:
            raise ConfigError(f"--at and --suspect {rank} name two places: leave one out")
        suspect = suspect_at(run, rank)
        return replace(self, place=suspect.place, segments=self.segments or suspect.labels, near=True)


def show(
    run: Run | None,
    layers: Sequence[Layer],
    look: Look,
    screenshot: Path | None,
    pixels: tuple[int, int],
    port: int,
    browser: bool,
) -> None:
    """Serve the layers and open the viewer, until Ctrl-C or until the picture is drawn."""
    from pipeline.viewing.server import ServedLayer, serving
    from pipeline.viewing.state import store_state
    from pipeline.viewing.viewer import open_viewer, take_screenshot
    from workflows.terminal.tables import say

    served = {layer.name: ServedLayer(layer.served, layer.properties, layer.folders) for layer in layers}
    with serving(served, port) as server, open_viewer(look.state(run, layers, server.url)) as viewer:
        if screenshot is not None:
            if not take_screenshot(viewer, screenshot, pixels):
                say(
                    "not everything has arrived in time, so parts may be missing (has every --segment a mesh?)",
                    "yellow",
                )
            typer.echo(f"{screenshot} shows {', '.join(layer.name for layer in layers if layer.visible)}")
            return
        stay(viewer.get_viewer_url(), browser)
        if run is not None:
            store_state(run.store, viewer.state.to_json(), server.url)
            typer.echo(f"where you looked is kept in {run.url}/view.json")


def _selecting(state: dict[str, Any], segments: Sequence[int]) -> dict[str, Any]:
    """The state with these segments shown alone, in every visible layer of labels."""
    if segments:
        for layer in state["layers"]:
            if layer["type"] == "segmentation" and layer["visible"]:
                layer["segments"] = [str(segment) for segment in segments]
    return state


def stay(address: str, browser: bool) -> None:
    """Print the address of a page, open it, and wait for Ctrl-C."""
    import threading
    import webbrowser

    try:
        typer.echo(f"look at {address}\nCtrl-C ends it")
        if browser:
            webbrowser.open(address)
        while not threading.Event().wait(0.5):
            pass
    except KeyboardInterrupt:
        typer.echo("")
