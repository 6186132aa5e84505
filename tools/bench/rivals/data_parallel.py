"""A training step of BLOOM by PyTorch's FSDP2 or DDP over gloo; see ../benches/data-parallel.mjs. Starts its own ranks."""

import json
import os
import resource
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from transformers import BloomForCausalLM


def train(rank, spec, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(spec["world"]))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    sizes = spec["sizes"]
    model = BloomForCausalLM.from_pretrained(spec["folder"], dtype=torch.float32).train()
    if spec["mode"] == "fsdp2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (spec["world"],))
        for block in model.transformer.h:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    else:
        model = torch.nn.parallel.DistributedDataParallel(model)
    # AdamW over sharded tensors has no fused form on every version: take it where it is.
    try:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    except RuntimeError:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    batch = sizes["batch"] // spec["world"]
    t = torch.arange(sizes["length"] + 1)
    b = torch.arange(rank * batch, (rank + 1) * batch).view(-1, 1)
    rows = (t * 7919 + b * 104729 + (t * t) % 251) % sizes["vocabSize"]
    losses = []

    def step():
        optimizer.zero_grad(set_to_none=True)
        logits = model(rows[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / spec["world"])

    step()
    start = time.perf_counter()
    for _ in range(spec["iterations"]):
        step()
    seconds = time.perf_counter() - start
    peak = torch.tensor(float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    if rank == 0:
        answer = {"seconds": seconds, "losses": losses, "peak_rss_mb": round(peak.item() / 1024)}
        print(json.dumps(answer), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    SPEC = json.loads(sys.argv[1])
    processes.spawn(train, args=(SPEC, 20000 + os.getpid() % 20000), nprocs=SPEC["world"])
