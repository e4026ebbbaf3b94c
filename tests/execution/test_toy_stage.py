"""The toy stage of these tests is a stage like any other."""

from pathlib import Path

from pipeline.storage import ObjectStore
from tests.contracts.stage import StageContract
from tests.contracts.toy import ToyStage


class TestToyStage(StageContract):
    def make(self, folder: Path) -> ToyStage:
        return ToyStage(ObjectStore(folder), level_count=3)
