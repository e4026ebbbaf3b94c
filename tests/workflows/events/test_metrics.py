"""The driver's metrics, scraped as Prometheus does, from a real port of a real run."""

import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

import prometheus_client
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config.run_file import Execution
from pipeline.errors import ConfigError, StageFailed
from pipeline.execution.nodes import IN_A_ROW
from pipeline.execution.runner import (
    Event,
    NodeAvoided,
    RunOptions,
    StageFinished,
    StageStarted,
    fan_out,
    run_stage,
)
from pipeline.execution.serial import SerialExecutor
from pipeline.ledger.ledger import Ledger
from pipeline.runs.status import read_status
from pipeline.stages import opened
from pipeline.storage import ObjectStore
from tests.contracts.toy import ToyStage
from tests.runs import petaseg
from tests.stages.test_every_stage import small_run
from workflows.driver import segment
from workflows.events.metrics import RunMetrics, serve_metrics

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "watching.md"

Samples = dict[tuple[str, ...], float]


def scrape(url: str) -> Samples:
    """Read the metrics as (name, stage, other labels ...) -> value."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(sample.name, *by_stage(sample.labels)): sample.value for family in families for sample in family.samples}


def by_stage(labels: dict[str, str]) -> list[str]:
    """The values of labels, the stage first."""
    return [labels[name] for name in sorted(labels, key=lambda name: (name != "stage", name))]


class Scraper:
    """A listener that scrapes the metrics when a stage has begun or ended."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: dict[str, Samples] = {}

    def announce(self, text: str) -> None:
        """Take the address from the message to the user."""
        self.url = text.removeprefix("metrics: ")

    def __call__(self, event: Event) -> None:
        """Scrape if the event begins or ends a stage."""
        if isinstance(event, StageStarted):
            self.seen[f"{event.stage} starts"] = scrape(self.url)
        elif isinstance(event, StageFinished):
            self.seen[event.stage] = scrape(self.url)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scraper, Path]:
    """A whole run with metrics, scraped over HTTP while it went on."""
    folder = tmp_path_factory.mktemp("scraped")
    opened.forget()
    scraper = Scraper()
    segment(
        str(small_run(folder)),
        ("execution.metrics=127.0.0.1:0",),
        listener=scraper,
        announce=scraper.announce,
    )
    return scraper, folder


def test_what_is_scraped_is_what_the_ledger_says(scraped: tuple[Scraper, Path]) -> None:
    """After a stage has ended, its metrics equal the numbers of ``petaseg status``."""
    scraper, folder = scraped
    from pipeline.runs.run import Run

    stages = read_status(Run.open(folder / "run.yaml"))
    last = list(scraper.seen.values())[-1]
    for stage in stages:
        name = stage.name
        assert last["petaseg_chunks", name] == last["petaseg_chunks_complete", name] == stage.total
        assert last["petaseg_chunks_done_total", name] == stage.done == stage.total
        assert last["petaseg_voxels_total", name] == stage.voxels
        assert last["petaseg_bytes_written_total", name] == stage.bytes_written
        assert last["petaseg_chunk_seconds_count", name] == stage.done
        assert last["petaseg_chunk_seconds_sum", name] == pytest.approx(stage.seconds, abs=0.001 * stage.done)
        assert last["petaseg_chunks_failed_total", name, "true"] == 0
        phases = [last["petaseg_chunk_phase_seconds_total", name, p] for p in ("read", "wait", "compute", "write")]
        assert 0 < sum(phases) <= last["petaseg_chunk_seconds_sum", name]


def test_the_network_says_what_it_ran_and_how_long_it_waited(scraped: tuple[Scraper, Path]) -> None:
    """Metrics of the network count patches run and skipped, and the seconds that it waited for input."""
    scraper, folder = scraped
    from pipeline.runs.run import Run

    counters = read_status(Run.open(folder / "run.yaml"))[0].counters
    seen = scraper.seen["predict_heads"]
    assert seen["petaseg_stage_count_total", "predict_heads", "patches"] == counters["patches"] > 0
    assert seen["petaseg_stage_count_total", "predict_heads", "skipped"] == counters["skipped"]
    assert seen["petaseg_input_wait_seconds_total", "predict_heads"] > 0


def test_the_stage_that_runs_is_marked(scraped: tuple[Scraper, Path]) -> None:
    seen = scraped[0].seen
    assert seen["agglomerate starts"]["petaseg_stage_running", "agglomerate"] == 1
    assert ("petaseg_stage_running", "build_region_graph") not in seen["agglomerate starts"]
    assert seen["agglomerate"]["petaseg_stage_running", "agglomerate"] == 0


def test_the_port_is_closed_with_the_run(scraped: tuple[Scraper, Path]) -> None:
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(scraped[0].url, timeout=5)


def test_the_page_lists_every_metric_and_no_other(scraped: tuple[Scraper, Path]) -> None:
    """The table of docs/watching.md lists every metric and no other."""
    told = set(re.findall(r"^\| `(petaseg_\w+)", PAGE.read_text(), re.MULTILINE))
    found = {name for name, *_ in scraped[0].seen["relabel"] if name.startswith("petaseg_")}
    found = {re.sub(r"^(petaseg_chunk_seconds)_.*", r"\1", name) for name in found if not name.endswith("_created")}
    assert told == found


def test_the_pages_example_for_prometheus_scrapes_this_port() -> None:
    """The Prometheus configuration in docs/watching.md scrapes the address of the page's run file example."""
    (block,) = re.findall(r"^    scrape_configs:\n(?:^    .*\n)+", PAGE.read_text(), re.MULTILINE)
    (job, *_) = yaml.safe_load("\n".join(line[4:] for line in block.splitlines()))["scrape_configs"]
    assert job["job_name"] == "petaseg"
    assert job.get("metrics_path", "/metrics") == "/metrics"
    (target,) = job["static_configs"][0]["targets"]
    assert f"metrics: {target}" in PAGE.read_text()


class Bench:
    """Toy stages that run with metrics."""

    def __init__(self, folder: Path) -> None:
        self.store, self.metrics = ObjectStore(folder), RunMetrics("toy")

    def run(self, stage: ToyStage) -> None:
        ledger = Ledger(self.store, stage.name, stage.fingerprint, stage.grids())
        options = RunOptions.of(Execution(), "petaseg run run.yaml", sleep=lambda _: None)
        run_stage(stage, ledger, SerialExecutor(), options, on_event=fan_out(None, self.metrics))

    def scrape(self) -> Samples:
        with serve_metrics(self.metrics, "127.0.0.1:0") as url:
            return scrape(url)


def test_failures_are_counted_and_those_that_are_final_apart(tmp_path: Path) -> None:
    """Failures that will be retried and failures that are final are counted apart."""
    bench = Bench(tmp_path)
    with pytest.raises(StageFailed):
        bench.run(ToyStage(bench.store, faults={"0_0_0": "fail", "1_1_1": "config"}))
    seen = bench.scrape()
    assert seen["petaseg_chunks_failed_total", "measure_distances", "false"] == 2
    assert seen["petaseg_chunks_failed_total", "measure_distances", "true"] == 2
    assert seen["petaseg_chunks_done_total", "measure_distances"] == 46


def test_a_driver_that_goes_on_counts_from_zero_and_shows_what_was_there(tmp_path: Path) -> None:
    """The metrics of a resumed run count its own chunks from zero, and show all complete chunks apart."""
    first, second = Bench(tmp_path), Bench(tmp_path)
    with pytest.raises(StageFailed):
        first.run(ToyStage(first.store, faults={"0_0_0": "config"}))
    second.run(ToyStage(second.store))
    seen = second.scrape()
    assert seen["petaseg_chunks_done_total", "measure_distances"] == 1
    assert seen["petaseg_chunks_complete", "measure_distances"] == seen["petaseg_chunks", "measure_distances"] == 48


def test_a_node_that_is_avoided_is_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.metrics(StageStarted("measure_distances", 48, 0))
    assert bench.scrape()["petaseg_nodes_avoided_total", "measure_distances"] == 0
    bench.metrics(NodeAvoided("measure_distances", "node-3", f"failed {IN_A_ROW} in a row"))
    assert bench.scrape()["petaseg_nodes_avoided_total", "measure_distances"] == 1


def test_two_runs_of_a_process_do_not_share_metrics(tmp_path: Path) -> None:
    """Two runs in one process have metrics of their own, and none in Prometheus's global registry."""
    bench, other = Bench(tmp_path / "a"), Bench(tmp_path / "b")
    bench.run(ToyStage(bench.store))
    assert ("petaseg_chunks_done_total", "measure_distances") not in other.scrape()
    assert not [m.name for m in prometheus_client.REGISTRY.collect() if m.name.startswith("petaseg")]


def test_a_port_that_is_taken_is_said_before_anything_is_computed(tmp_path: Path) -> None:
    file = small_run(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"execution\.metrics is {address}.* choose another port"):
            segment(str(file), (f"execution.metrics={address}",))
    assert not (tmp_path / "run" / "ledger").exists()


def test_a_name_that_does_not_exist_is_said_too() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen"), serve_metrics(RunMetrics("x"), "no.such.host.invalid:0"):
        pass


@pytest.mark.slow
def test_a_user_is_told_where_metrics_and_dashboard_are(tmp_path: Path) -> None:
    """The addresses of metrics and dashboard, with the chosen ports, are printed and logged."""
    sets = ("execution.executor=dask", "execution.workers=1", "execution.dashboard=127.0.0.1:0")
    more = [part for each in (*sets, "execution.metrics=127.0.0.1:0") for part in ("--set", each)]
    ran = petaseg("run", small_run(tmp_path), *more)
    assert ran.returncode == 0, ran.stderr
    logged = (tmp_path / "run" / "petaseg.log").read_text()
    for pattern in (r"metrics: http://127\.0\.0\.1:\d+/metrics", r"Dask dashboard: http://127\.0\.0\.1:\d+/"):
        assert re.search(pattern, ran.stderr)
        assert re.search(pattern, logged)
