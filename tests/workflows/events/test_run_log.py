"""The run's log on a disk that cannot take it."""

import logging

from workflows.events.run_log import RunLog


def test_a_full_disk_costs_messages_and_one_line_and_not_the_run(capsys):
    """On a full disk log messages are lost, one line on the terminal says so, and no error is raised."""
    log = RunLog("/dev/full")
    logger = logging.Logger("of a run")
    logger.addHandler(log)
    for _ in range(3):
        logger.warning("a chunk failed")
    log.close()
    assert capsys.readouterr().err.splitlines() == [
        "petaseg: messages are missing in /dev/full: [Errno 28] No space left on device"
    ]


def test_a_disk_that_is_full_at_the_end_is_told_of_too(tmp_path, capsys):
    """A disk that is found full only when the log is closed is reported once."""
    log = RunLog(tmp_path / "petaseg.log")
    log.stream.close()
    log.stream = open("/dev/full", "w")  # noqa: SIM115  (the log closes it)
    log.stream.write("what was kept back")
    log.close()
    assert capsys.readouterr().err.count("No space left on device") == 1
