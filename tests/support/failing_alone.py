"""One of two processes whose work fails on one of them; what each ends with is written to FOLDER/RANK.

RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say which process this is: ``failing_alone.py FOLDER CASE``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import PartialState

from r1_reward.records.errors import UserError
from r1_reward.train.processes import all_or_none, once


def fail(error):
    raise error


def bug_on_the_second(rank):
    with all_or_none("asking the referee"):
        if rank == 1:
            fail(KeyError("column"))


def refusal_on_the_first(rank):
    with all_or_none("asking the referee"):
        if rank == 0:
            fail(UserError("the referee refuses the key"))


def bug_in_the_main_processs_work(rank):
    once(lambda: fail(ZeroDivisionError("no rows")))


def nothing(rank):
    with all_or_none("asking the referee"):
        pass


def main(folder, case):
    state = PartialState(cpu=True)
    outcome = "fine"
    try:
        globals()[case](state.process_index)
        state.wait_for_everyone()  # where a process would wait for one that failed
    except Exception as error:  # noqa: BLE001
        outcome = f"{type(error).__name__}: {error}"
    Path(folder, str(state.process_index)).write_text(outcome)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()  # its threads, left running, may abort a process that ends


if __name__ == "__main__":
    main(*sys.argv[1:])
