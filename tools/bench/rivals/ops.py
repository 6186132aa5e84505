"""PyTorch's way to do what our ops do, on the same inputs. See ../benches/ops.mjs."""

import os

import torch
import torch.nn.functional as F
from rival import serve

DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "i32": torch.int32,
    "u8": torch.uint8,
}


def load(described, device):
    """Reads one raw file as a tensor of its own, on a device."""
    dtype, shape = DTYPES[described["dtype"]], described["shape"]
    count = 1
    for dim in shape:
        count *= dim
    return torch.from_file(described["file"], shared=False, size=count, dtype=dtype).clone().view(shape).to(device)


def layer_norm(x, p):
    s = x["x"] + x["residual"] if "residual" in x else x["x"]
    y = F.layer_norm(s, s.shape[-1:], x["weight"], x["bias"], p.get("eps", 1e-5))
    return {"y": y, "sum": s} if "residual" in x else {"y": y}


def attention(x, p, masked):
    qkv, heads = x["qkv"], p["heads"]
    batch, tokens, width = qkv.shape
    size = width // heads // 3
    q, k, v = qkv.view(batch, tokens, heads, 3, size).permute(3, 0, 2, 1, 4).unbind(0)
    if masked:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=x["bias"])
    else:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return {"out": out.transpose(1, 2).reshape(batch, tokens, heads * size)}


def alibi_bias(x, p):
    """The additive mask that SDPA needs for causal ALiBi: [1, H, T, T], made once."""
    tokens = x["qkv"].shape[1]
    at = torch.arange(tokens, device=x["qkv"].device)
    bias = x["slopes"].view(1, -1, 1, 1) * (at.view(1, 1, 1, -1) - at.view(1, 1, -1, 1))
    bias.masked_fill_(torch.ones(tokens, tokens, dtype=torch.bool, device=at.device).triu(1), float("-inf"))
    return bias.to(x["qkv"].dtype)


def softmax_cross_entropy(x, p):
    """Our op gives the gradient with the losses, so this one does as well."""
    logits = x["logits"].detach().requires_grad_()
    with torch.enable_grad():
        losses = F.cross_entropy(logits, x["targets"].long(), ignore_index=-100, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum() * p["scale"], logits)
    # Of 16-bit logits its losses have 8 bits, ours 24.
    exact = {"losses": losses.detach()} if losses.dtype == torch.float32 else {}
    return {**exact, "dlogits": gradient}


def dropout(x, p):
    y = F.dropout(x["x"], p["p"])
    return {"y": y + x["residual"] if "residual" in x else y}


def linear(x, p):
    y = F.linear(x["x"], x["weight"], x.get("bias"))
    if p.get("gelu"):
        y = F.gelu(y, approximate="tanh")
    return {"y": y + x["residual"] if "residual" in x else y}


def copies(x, _):
    kinds = {"same": x["x"].dtype, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
    return {name: x["x"].to(dtype, copy=True) for name, dtype in kinds.items()}


def sums(x, _):
    once = x["x"].sum()
    return {"sum": once, "twice": once + x["x"].sum() + x["x"].sum() - once}


OPS = {
    "layer_norm": layer_norm,
    "gelu": lambda x, p: {"y": F.gelu(x["x"], approximate="tanh")},
    "scale_add": lambda x, p: {"out": torch.add(x["a"] if p["alpha"] == 1 else x["a"] * p["alpha"], x["b"], alpha=p["beta"])},
    "scale": lambda x, p: {"y": x["x"] * p["factor"]},
    "copy": copies,
    "dropout": dropout,
    "embedding": lambda x, p: {"y": F.embedding(x["ids"], x["table"])},
    "linear": linear,
    "sdpa_mask": lambda x, p: attention(x, p, True),
    "sdpa_causal": lambda x, p: attention(x, p, False),
    "memcpy": lambda x, p: {"y": torch.empty_like(x["x"]).copy_(x["x"])},
    "softmax_cross_entropy": softmax_cross_entropy,
    "sum": sums,
    "square_sum": lambda x, p: {"squareSum": torch.linalg.vector_norm(x["x"]) ** 2},
    "argmax": lambda x, p: {"index": x["x"].argmax(-1)},
}


class Side:
    """What all have: the inputs on their device, and waiting for it."""

    def __init__(self, spec):
        torch.set_num_threads(spec["threads"])
        self.device = torch.device(spec["device"])
        self.inputs = {name: load(described, self.device) for name, described in spec["inputs"].items()}

    def finish(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Op(Side):
    """An op without state."""

    def __init__(self, spec):
        if spec["op"] not in OPS:
            raise NotImplementedError(f"rivals/ops.py has no {spec['op']}")
        self.op, self.parameters, self.backward = OPS[spec["op"]], spec["parameters"], spec["backward"]
        super().__init__(spec)
        self.gradients = {name: load(described, self.device) for name, described in spec["gradients"].items()}
        if "slopes" in self.inputs:
            self.inputs["bias"] = alibi_bias(self.inputs, self.parameters)
        self.leaves = [n for n, t in self.inputs.items() if t.is_floating_point() and n not in ("bias", "slopes")]
        if self.backward:
            for name in self.leaves:
                self.inputs[name].requires_grad_()

    def compute(self):
        if not self.backward:
            with torch.no_grad():
                return self.op(self.inputs, self.parameters)
        outputs = self.op(self.inputs, self.parameters)
        names = list(self.gradients)
        leaves = [self.inputs[name] for name in self.leaves]
        gradients = torch.autograd.grad([outputs[n] for n in names], leaves, [self.gradients[n] for n in names])
        return {**outputs, **{f"d{name}": gradient for name, gradient in zip(self.leaves, gradients)}}

    def run(self):
        self.compute()

    def outputs(self, folder):
        return write(folder, self.compute())


class Sdpa(Side):
    """Causal attention alone, of queries, keys and values that lie as it likes them: [B, H, T, D], each of its own."""

    def __init__(self, spec):
        super().__init__(spec)
        qkv, heads = self.inputs.pop("qkv"), spec["parameters"]["heads"]
        batch, tokens, width = qkv.shape
        self.shape = (batch, tokens, heads, width // heads // 3)
        parts = qkv.view(batch, tokens, heads, 3, -1).permute(3, 0, 2, 1, 4).contiguous().unbind(0)
        self.parts = [part.detach().requires_grad_(spec["backward"]) for part in parts]
        self.gradient = None
        if spec["backward"]:
            out = load(spec["gradients"]["out"], self.device)
            self.gradient = out.view(self.shape).transpose(1, 2).contiguous()

    def compute(self):
        out = F.scaled_dot_product_attention(*self.parts, is_causal=True)
        if self.gradient is None:
            return out, None
        return out, torch.autograd.grad(out, self.parts, self.gradient)

    def run(self):
        self.compute()

    def outputs(self, folder):
        out, gradients = self.compute()
        results = {"out": out.transpose(1, 2).flatten(2)}
        if gradients:
            # [3, B, H, T, D] as ours lies: [B, T, H, 3, D].
            results["dqkv"] = torch.stack(gradients).permute(1, 3, 2, 0, 4).flatten(2)
        return write(folder, results)


class Product(Side):
    """y = a b in bf16, of operands from the formula of ../cuda/gemm.mjs; its bits are hashed as there."""

    def __init__(self, spec):
        super().__init__(spec)
        m, n, k = spec["M"], spec["N"], spec["K"]
        self.a = self.operand(m * k, 1)
        self.b = self.operand(n * k, 2)
        self.a = self.a.view(k, m).T if spec["a"] else self.a.view(m, k)
        self.b = self.b.view(n, k).T if spec["b"] else self.b.view(k, n)

    def operand(self, count, seed):
        h = (torch.arange(seed, seed + count, device=self.device) * 0x9E3779B1) & 0xFFFFFFFF
        h ^= h >> 15
        h = (h * 0x2C1B3C6D) & 0xFFFFFFFF
        h ^= h >> 12
        return ((h % 13 - 6) / 4).to(torch.bfloat16)

    def run(self):
        return torch.matmul(self.a, self.b)

    def outputs(self, _folder):
        bits = self.run().flatten().view(torch.int16).to(torch.int64) & 0xFFFF
        weights = (torch.arange(bits.numel(), device=self.device) * 0x9E3779B1) & 0xFFFFFFFF | 1
        return {"hash": int((bits * weights).sum()) & 0xFFFFFFFF}


class AdamW(Side):
    """The bare fused step; a bf16 gradient is widened and a bf16 copy written by passes of their own, as trainers do."""

    def __init__(self, spec):
        super().__init__(spec)
        # Larger than what is carried in files: the same numbers again and again.
        for name, tensor in self.inputs.items():
            self.inputs[name] = tensor.repeat(spec.get("repeats", 1))
        self.shown = self.inputs["p"].numel() // spec.get("repeats", 1)
        p = self.inputs["p"].requires_grad_()
        decay = spec["parameters"].get("decay", 0)
        self.optimizer = torch.optim.AdamW([p], lr=1e-2, weight_decay=decay, fused=True)
        self.optimizer.state[p] = {
            "step": torch.tensor(0.0, device=self.device),
            "exp_avg": self.inputs["m"],
            "exp_avg_sq": self.inputs["v"],
        }
        self.copy = self.inputs.get("copy")

    def run(self):
        p, grad = self.inputs["p"], self.inputs["grad"]
        p.grad = grad if grad.dtype == torch.float32 else grad.float()
        self.optimizer.step()
        if self.copy is not None:
            with torch.no_grad():
                self.copy.copy_(p)

    def outputs(self, folder):
        self.run()
        results = {name: self.inputs[name] for name in ("p", "m", "v")}
        if self.copy is not None:
            results["copy"] = self.copy
        return write(folder, {name: tensor[: self.shown] for name, tensor in results.items()})


def write(folder, tensors):
    """Writes tensors as float32; gives their files."""
    files = {}
    for name, tensor in tensors.items():
        files[name] = os.path.join(folder, f"output-{name}.bin")
        tensor.detach().to(torch.float32).contiguous().cpu().numpy().tofile(files[name])
    return files


KINDS = {"adamw": AdamW, "sdpa_bare": Sdpa, "product": Product}


def release():
    """Our side needs the memory that PyTorch would keep for itself."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


serve(lambda spec: KINDS.get(spec["op"], Op)(spec), release)
