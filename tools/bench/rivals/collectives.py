"""Collectives by PyTorch over gloo; see ../benches/collectives.mjs. Starts its own ranks."""

import json
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as processes


def measure(rank, spec, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(spec["world"]))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    n, size = spec["bytes"] // 4, spec["world"]
    full = torch.arange(n).remainder(97).mul(rank + 1).float()
    gathers = spec["primitive"] == "all_gather"
    part = full[rank * n // size : (rank + 1) * n // size] if gathers else torch.empty(n // size)
    call = {
        "all_reduce": lambda: dist.all_reduce(full),
        "all_gather": lambda: dist.all_gather_into_tensor(full, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, full),
    }[spec["primitive"]]
    call()
    got = part if spec["primitive"] == "reduce_scatter" else full
    result = [got[i].item() for i in (0, 1, 95, -1)] + [got.double().sum().item()]
    full.zero_()
    for _ in range(max(3, 2**28 // spec["bytes"])):
        call()
    dist.barrier()
    start = time.perf_counter()
    for _ in range(spec["iterations"]):
        call()
    seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    if rank == 0:
        print(json.dumps({"seconds": seconds.item(), "result": result}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    SPEC = json.loads(sys.argv[1])
    processes.spawn(measure, args=(SPEC, 20000 + os.getpid() % 20000), nprocs=SPEC["world"])
