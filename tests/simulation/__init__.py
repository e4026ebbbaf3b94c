"""A simulation of drivers: the real runner, ledger and lease, on a simulated executor and a simulated store.

    python -m tests.simulation --seeds 0:10000          thousands of runs in minutes
    python -m tests.simulation --seeds 17:18 --verbose  one run, told step by step

One seed decides everything: how long chunks take, which workers, chunks, nodes and requests fail, when the driver dies
and in the middle of what, which of its requests arrive after its death, when it is cut off and comes back, which
workers come back late, who starts a second driver, and how often the configuration changes meanwhile.

    world.py      the clock, the dice, and processes that die or are cut off
    store.py      SimulatedStore: objects in memory, behind ``ObjectStore``
    executor.py   SimulatedExecutor: workers on the simulated clock, behind ``Executor``
    stages.py     a chain of two small stages, one of them a tree
    fate.py       what a seed says: the settings of a run and the faults of each of its lives
    judge.py      what must hold after every life, and in the end
    run.py        one seed from its first life to its last
"""
