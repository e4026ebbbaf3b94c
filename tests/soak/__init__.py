"""The fault soak: real runs of a small volume that are killed, starved of disk space and resumed, again and again.

    python -m tests.soak --runs 200 --seed 1     200 seeded runs; the seed of a failure is printed
    python -m tests.soak --runs 1 --seed 17 -v   one of them, told life by life

After each life of a run everything that is marked done must still be so; in the end the labels, the supervoxels and
the merge tree (and the affinities, where the network was run) must be byte for byte those of an undisturbed, unchunked,
serial run, and every stored chunk must have the checksum that its ledger holds.

Drivers and workers are real processes, killed with SIGKILL. They are forked from one process that has imported
everything, so a run costs about a second instead of ten.

    plan.py        what a seed says: chunks, executor, and what happens in each life
    processes.py   forked drivers, and how they die at a certain storage operation
    cluster.py     a Dask scheduler and its workers as forked processes
    references.py  the volumes, and the undisturbed runs of them
    run.py         one seed from its first life to its last
"""
