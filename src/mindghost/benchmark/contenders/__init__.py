"""What is measured, one module a contender, each run in a process of its own: `python -m contenders.NAME JOB`.

The benchmark puts the folder above this one on the path of the process, so that `contenders` is a package of its own:
importing `mindghost` would set environment variables that only our own network is to have. PyTorch's module needs torch
and numpy alone, and runs in another interpreter. For the same reason imports of the project are absolute here.

A job is a JSON file, see `job.Job`; the answer is written to the file that it names.
"""
