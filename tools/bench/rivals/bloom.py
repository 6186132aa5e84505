"""BLOOM by PyTorch alone, for machines without transformers: a training step, and greedy decoding. See ../cuda/bloom.mjs."""

import json
import math
import os

import torch
import torch.nn.functional as F
from rival import serve

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def read_weights(folder):
    """Reads model.safetensors: a length, a header in JSON, the tensors' bytes."""
    with open(os.path.join(folder, "model.safetensors"), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    weights = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        values = torch.frombuffer(data, dtype=DTYPES[entry["dtype"]], count=(end - begin) // DTYPES[entry["dtype"]].itemsize, offset=begin)
        weights[name.removeprefix("transformer.")] = values.view(entry["shape"])
    return weights


def slopes_of(heads):
    """ALiBi's slopes (Press et al. 2022); those of the next power of two fill up."""
    power = 2 ** math.floor(math.log2(heads))
    base = 2 ** (-(2 ** -(math.log2(power) - 3)))
    slopes = [base ** (i + 1) for i in range(power)]
    extra = 2 ** (-(2 ** -(math.log2(2 * power) - 3)))
    return torch.tensor(slopes + [extra ** (2 * i + 1) for i in range(heads - power)])


class Bloom(torch.nn.Module):
    """The model as its paper has it; parameters under Hugging Face's names, with / for the dots."""

    def __init__(self, sizes, device, dtype, folder=None):
        super().__init__()
        self.width, self.heads, self.layers = sizes["hiddenSize"], sizes["heads"], sizes["layers"]
        given = read_weights(folder) if folder else None
        for name, shape in self.shapes(sizes["vocabSize"]):
            if given:
                value = given[name].to(device, dtype)
            elif name.endswith("bias"):
                value = torch.zeros(shape, device=device, dtype=dtype)
            elif len(shape) == 1:
                value = torch.ones(shape, device=device, dtype=dtype)
            else:
                value = torch.randn(shape, device=device, dtype=dtype) * 0.02
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(value))
        self.slopes = slopes_of(self.heads).to(device)

    def shapes(self, vocabulary):
        width = self.width
        yield "word_embeddings.weight", [vocabulary, width]
        norms = ["word_embeddings_layernorm", "ln_f"]
        for layer in range(self.layers):
            norms += [f"h.{layer}.input_layernorm", f"h.{layer}.post_attention_layernorm"]
            for part, rows, columns in [
                ("self_attention.query_key_value", 3 * width, width),
                ("self_attention.dense", width, width),
                ("mlp.dense_h_to_4h", 4 * width, width),
                ("mlp.dense_4h_to_h", width, 4 * width),
            ]:
                yield f"h.{layer}.{part}.weight", [rows, columns]
                yield f"h.{layer}.{part}.bias", [rows]
        for norm in norms:
            yield f"{norm}.weight", [width]
            yield f"{norm}.bias", [width]

    def of(self, name):
        return self.get_parameter(name.replace(".", "/"))

    def norm(self, name, x):
        return F.layer_norm(x, (self.width,), self.of(f"{name}.weight"), self.of(f"{name}.bias"))

    def linear(self, name, x):
        return F.linear(x, self.of(f"{name}.weight"), self.of(f"{name}.bias"))

    def block(self, layer, x, bias, cache):
        batch, tokens, width = x.shape
        fused = self.linear(f"h.{layer}.self_attention.query_key_value", self.norm(f"h.{layer}.input_layernorm", x))
        q, k, v = fused.view(batch, tokens, self.heads, 3, width // self.heads).permute(3, 0, 2, 1, 4).unbind(0)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        x = x + self.linear(f"h.{layer}.self_attention.dense", out.transpose(1, 2).reshape(batch, tokens, width))
        inner = self.linear(f"h.{layer}.mlp.dense_h_to_4h", self.norm(f"h.{layer}.post_attention_layernorm", x))
        return x + self.linear(f"h.{layer}.mlp.dense_4h_to_h", F.gelu(inner, approximate="tanh"))

    def forward(self, ids, past=0, cache=None):
        total = past + ids.shape[1]
        query = torch.arange(past, total, device=ids.device).view(-1, 1)
        key = torch.arange(total, device=ids.device).view(1, -1)
        bias = (self.slopes.view(1, -1, 1, 1) * (key - query)).masked_fill(key > query, float("-inf"))
        x = self.norm("word_embeddings_layernorm", F.embedding(ids, self.of("word_embeddings.weight")))
        for layer in range(self.layers):
            x = self.block(layer, x, bias, cache)
        return F.linear(self.norm("ln_f", x), self.of("word_embeddings.weight"))


def finish(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


class Step:
    """A training step with the fused AdamW; `bf16`: products in bf16 of float32 weights, as PyTorch's users train."""

    def __init__(self, spec):
        self.device = torch.device(spec["device"])
        torch.set_num_threads(spec["threads"])
        sizes, self.bf16 = spec["sizes"], spec["bf16"]
        self.model = Bloom(sizes, self.device, torch.float32, spec.get("folder"))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
        t = torch.arange(sizes["length"] + 1)
        b = torch.arange(sizes["batch"]).view(-1, 1)
        self.rows = ((t * 7919 + b * 104729 + (t * t) % 251) % sizes["vocabSize"]).to(self.device)
        self.losses = []

    def run(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            logits = self.model(self.rows[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), self.rows[:, 1:].flatten())
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())

    def finish(self):
        finish(self.device)

    def outputs(self, _folder):
        return {"losses": self.losses}


class Cache:
    """Keys and values of every layer, in memory that is taken once."""

    def __init__(self, model, tokens, dtype, device):
        shape = (model.layers, 2, 1, model.heads, tokens, model.width // model.heads)
        self.values, self.past = torch.empty(shape, dtype=dtype, device=device), 0

    def extend(self, layer, k, v):
        total = self.past + k.shape[2]
        for side, new in enumerate((k, v)):
            self.values[layer, side, :, :, self.past : total] = new
        return self.values[layer, 0, :, :, :total], self.values[layer, 1, :, :, :total]


class Decode:
    """Greedy continuation of one prompt."""

    def __init__(self, spec):
        self.device = torch.device(spec["device"])
        torch.set_num_threads(spec["threads"])
        self.dtype = torch.bfloat16
        self.model = Bloom(spec["sizes"], self.device, self.dtype, spec["folder"]).eval()
        self.prompt, self.count = torch.tensor([spec["prompt"]], device=self.device), spec["count"]

    @torch.no_grad()
    def run(self):
        cache = Cache(self.model, self.prompt.shape[1] + self.count, self.dtype, self.device)
        ids, made = self.prompt, []
        for _ in range(self.count):
            logits = self.model(ids, cache.past, cache)
            cache.past += ids.shape[1]
            ids = logits[:, -1:].argmax(-1)
            made.append(ids.item())
        return made

    def outputs(self, _folder):
        return {"ids": self.run()}


KINDS = {"step": Step, "decode": Decode}


def release():
    """Our side needs the memory that PyTorch would keep for itself."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


serve(lambda spec: KINDS[spec["kind"]](spec), release)
