"""A training step of BLOOM by PyTorch and transformers, from the same weights on the same tokens. See ../benches/step.mjs."""

import torch
from rival import serve
from transformers import BloomForCausalLM


class Step:
    def __init__(self, spec):
        torch.set_num_threads(spec["threads"])
        sizes = spec["sizes"]
        self.model = BloomForCausalLM.from_pretrained(spec["folder"], dtype=torch.float32).train()
        self.bf16 = spec["bf16"]
        self.call = torch.compile(self.model) if spec["compile"] else self.model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        batch, length, vocabulary = sizes["batch"], sizes["length"], sizes["vocabSize"]
        t = torch.arange(length + 1)
        b = torch.arange(batch).view(-1, 1)
        self.rows = (t * 7919 + b * 104729 + (t * t) % 251) % vocabulary
        self.losses = []

    def run(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.call(self.rows[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), self.rows[:, 1:].flatten())
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def outputs(self, _folder):
        return {"losses": self.losses}


serve(Step)
