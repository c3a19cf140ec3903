"""Chaos: a workflow runs while faults hit it at random moments. Then it is completed undisturbed,
and every artifact must equal the reference's.

    python -m tests.chaos --hours 1              # the demo, on this machine
    python -m tests.chaos --kills 100 --slurm    # on a Slurm of its own, with virtual nodes (root)
    python -m tests.chaos --configfile config/test/toy.yaml --faults 10 --seed 3

The faults are real: signals, a full disk, a quota, a file-size limit, a memory limit, a folder in a
file's place, flipped bytes, a clock that jumps (libfaketime), emptied leases, edited configs, and
Slurm's daemons and commands that fail. A fault that this machine cannot have (no root, no package)
is left out and named.

The seed fixes the order of the faults, but not what the workflow is doing when one of them hits.
Each line of the output begins with the fault's place in that order. `--skip N` resumes a campaign
behind place N, with the same seed and a new run. A run that ends before the campaign does is
compared, and a new one begins.

The exit status is 0 only if all runs equal the reference, no log has a traceback, and each driver
ended in time.
"""
