"""What a user says on the command line is heard, or refused before anything is computed."""

from __future__ import annotations

import http.server
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer

from pipeline.config.reading import load_config
from pipeline.errors import ClusterError, ConfigError
from pipeline.runs.example import from_folder_of
from pipeline.runs.run import Run
from tests.runs import write_volume
from workflows.app import app
from workflows.central import check_scheduler
from workflows.cli import main
from workflows.commands.evaluate import _as_keys
from workflows.commands.init import write_example
from workflows.commands.options import beside_sets, finite, parse_box, parse_shape, parse_sizes, parse_two, parse_vector
from workflows.commands.relabel import parse_thresholds
from workflows.commands.submitting import read_setup

NAMES = [
    "a: b",
    "x (1)",
    "[v]",
    "*s",
    "{a}",
    "'q",
    "2021",
    "null",
    "@x",
    "1e3",
    "#a",
    "a #b",
    "-",
    "~x",
    "%",
    "yes",
    "4:00",
]


@pytest.mark.parametrize("name", NAMES)
def test_init_writes_the_very_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that means something else in YAML is quoted."""
    monkeypatch.chdir(tmp_path)
    write_example("run.yaml", name)
    assert load_config("run.yaml").input.image == name


def test_init_counts_a_path_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that was typed here is written as it is found from there; URLs and absolute paths stay."""
    monkeypatch.chdir(tmp_path)
    assert from_folder_of("run.yaml", "image.zarr") == "image.zarr"
    assert from_folder_of("a/b/run.yaml", "data/image.h5:raw") == "../../data/image.h5:raw"
    assert from_folder_of("a/run.yaml", "s3://b/image.zarr") == "s3://b/image.zarr"
    assert from_folder_of("a/run.yaml", "/data/image.zarr") == "/data/image.zarr"
    assert from_folder_of("s3://b/run.yaml", "image.zarr") == str(tmp_path.resolve() / "image.zarr")


def test_a_box_and_skeletons_of_a_run_are_keys_of_its_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``petaseg evaluate RUN --box --skeletons`` means the keys of the table ``evaluation``."""
    monkeypatch.chdir(tmp_path)
    assert beside_sets(None, _as_keys("0:8,1:9,2:10", "a: b.npz")) == [
        *("evaluation.start=[0, 1, 2]", "evaluation.stop=[8, 9, 10]"),
        f"evaluation.skeletons='{tmp_path.resolve()}/a: b.npz'",
    ]
    assert beside_sets(None, _as_keys(None, None)) == []


@pytest.mark.parametrize("text", ["0", "-1", "1,2", "inf", "1e3", "", "1.5", "²", "9" * 5000, "64,0,64"])
def test_a_shape_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--chunk is "):
        parse_shape(text, "--chunk")


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "1e400", "a", "4,4", ""])
def test_a_size_that_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--resolution is "):
        parse_sizes(text, "--resolution")


def test_numbers_of_options_are_read() -> None:
    assert parse_shape("64", "--chunk") == (64, 64, 64)
    assert parse_sizes("40, 4.5,4", "--resolution") == (40, 4.5, 4)
    assert parse_vector("-1,0,+7", "--offset") == (-1, 0, 7)
    assert str(parse_box("-1:5,0:1,2:3")) == "-1..5 x 0..1 x 2..3"


@pytest.mark.parametrize("box", ["0:0,0:1,0:1", "5:1,0:1,0:1", "0:1,0:1", "a:b,0:1,0:1", "", "0:1:2,0:1,0:1"])
def test_a_box_that_holds_nothing_is_refused(box: str) -> None:
    with pytest.raises(ConfigError, match="--box is "):
        parse_box(box)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300])
def test_an_option_is_a_finite_number(value: float) -> None:
    with pytest.raises(typer.BadParameter):
        finite(value)


@pytest.mark.parametrize("data", [b"\x93NUMPY\x00", b"a\0b", b"\xff\xfe"])
def test_setup_lines_are_text(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "setup").write_bytes(data)
    with pytest.raises(ConfigError, match="holds no text"):
        read_setup(tmp_path / "setup")


@pytest.mark.parametrize(
    "url", ["garbage", "", "localhost:8082", "ftp://h", "http://", "http://h:99999999", "http://h /x"]
)
def test_a_scheduler_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="it must be a URL, like http://localhost:8082"):
        check_scheduler(url)


def test_a_scheduler_that_is_not_there_is_named_with_the_remedy(web: str) -> None:
    """A port on which nobody listens, and a server that is no Luigi, are told apart; both end at once."""
    with pytest.raises(ClusterError, match=r"no Luigi scheduler answers at .*luigid"):
        check_scheduler("http://127.0.0.1:9")
    with pytest.raises(ClusterError, match="is no Luigi scheduler"):
        check_scheduler(web)


@pytest.fixture
def web() -> Iterator[str]:
    """A web server that knows nothing of Luigi."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["--nothing"],
        ["ingest"],
        ["ingest", "a.npy", "b.zarr", "--nothing"],
        ["ingest", "", "b.zarr"],
        ["ingest", "a\nb", "c.zarr"],
        ["synthesize", "tissue", "x", "--count", "0"],
        ["synthesize", "tissue", "x", "--seed", "one"],
        ["relabel", "--threshold", "7"],
        ["relabel", "--threshold", "nan"],
        ["run", "--set"],
        ["verify", "a", "b"],
    ],
)
def test_wrong_arguments_are_refused_like_everything_else(arguments: list[str]) -> None:
    """One sentence and the page that helps, as for any other refusal, instead of a frame."""
    with pytest.raises(ConfigError, match=r"[^\n]*; `[^`]*--help` says what is taken$"):
        app(arguments)


@pytest.mark.parametrize("text", ["1_0", "\u0668", "0x8", "8,8,1_0", "inf", "1e400"])
def test_a_length_is_a_number_as_people_write_it(text: str) -> None:
    """Python reads 1_0 as 10 and digits of every script; both are refused."""
    with pytest.raises(ConfigError, match="lengths above 0"):
        parse_sizes(text, "--resolution")
    with pytest.raises(ConfigError, match="two numbers"):
        parse_two(f"0,{text}", "--percentiles")
    with pytest.raises(ConfigError, match="thresholds from 0 to 1"):
        parse_thresholds(f"0.1,{text}")


@pytest.mark.parametrize("data", [b"\x93NUMPY\x01\x00", b"my notes", b"{}", b"a: 1", b"[1, 2]", b"\x89PNG\r\n"])
def test_init_with_force_replaces_only_files_of_its_kind(data: bytes, tmp_path: Path) -> None:
    """An image, notes and other files stay, whatever was typed; a run file, an empty one and one with a mistake go."""
    file = tmp_path / "run.yaml"
    file.write_bytes(data)
    with pytest.raises(ConfigError, match="--force does not replace it"):
        write_example(file, "image.zarr", force=True)
    assert file.read_bytes() == data
    for text in ("", "# only a remark", "run_directory: a", "run_directory: a: b"):
        file.write_text(text)
        write_example(file, "image.zarr", force=True)
        assert load_config(file).input.image


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init", "--schema", "--keys"], "--schema and --keys are both given"),
        (["ingest", "a.npy", "memory://x"], "is gone when this command ends"),
        (
            ["relabel", "--threshold", "0.4", "--set", "segmentation.threshold=0.3"],
            "--threshold and --set segmentation.threshold=0.3 are both given",
        ),
        (
            ["relabel", "--min-size", "4", "--set", "segmentation={min_size: 3}"],
            "--min-size and --set 'segmentation={min_size: 3}' are both given, and both say segmentation.min_size",
        ),
        (
            ["evaluate", "run", "--box", "0:1,0:1,0:1", "--set", "evaluation.stop=[1, 1, 1]"],
            "--box and --set 'evaluation.stop=.*' are both given",
        ),
        (["relabel", "--preview", "0.3", "--threshold", "0.4"], "--threshold is 0.4, which --preview does not use"),
        (["relabel", "--preview", "0.3", "--output", "x.zarr"], "--output is x.zarr, which --preview does not use"),
        (["run", "--on", "nowhere"], "the cluster is 'nowhere'"),
        (["verify", "--all", "--sample", "3"], "--all and --sample are both given"),
        (["ingest", "$HOME/a.npy", "b.zarr"], "begins with the name of a variable"),
    ],
)
def test_what_a_command_would_not_use_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        app(arguments)


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A shape that no machine holds ends in words, and not in a traceback."""

    def fail() -> None:
        raise MemoryError("Unable to allocate 3.56 PiB")

    monkeypatch.setattr("workflows.app.app", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "petaseg: this machine has too little memory (Unable to allocate 3.56 PiB)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["truth.zarr", "my truth.zarr"])
def test_a_volume_in_place_of_a_run_is_called_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what was named, and the command that makes a run of it; a missing folder is called missing."""
    monkeypatch.chdir(tmp_path)
    write_volume(tmp_path / name, np.ones((4, 4, 4), np.uint8))
    quoted = shlex.quote(name)
    with pytest.raises(ConfigError, match=f"{name} is a volume .zarr..*`petaseg init run.yaml --image {quoted}`"):
        Run.open(name)
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        Run.open("nowhere")
