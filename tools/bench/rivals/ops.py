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


def load(described):
    """Reads one raw file as a tensor of its own."""
    dtype, shape = DTYPES[described["dtype"]], described["shape"]
    count = 1
    for dim in shape:
        count *= dim
    return torch.from_file(described["file"], shared=False, size=count, dtype=dtype).clone().view(shape)


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
    at = torch.arange(tokens)
    bias = x["slopes"].view(1, -1, 1, 1) * (at.view(1, 1, 1, -1) - at.view(1, 1, -1, 1))
    bias.masked_fill_(torch.ones(tokens, tokens, dtype=torch.bool).triu(1), float("-inf"))
    return bias.to(x["qkv"].dtype)


def softmax_cross_entropy(x, p):
    """Our op gives the gradient with the losses, so this one does as well."""
    logits = x["logits"].detach().requires_grad_()
    with torch.enable_grad():
        losses = F.cross_entropy(logits, x["targets"].long(), ignore_index=-100, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum() * p["scale"], logits)
    return {"losses": losses.detach(), "dlogits": gradient}


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
    "softmax_cross_entropy": softmax_cross_entropy,
    "sum": sums,
    "square_sum": lambda x, p: {"squareSum": torch.linalg.vector_norm(x["x"]) ** 2},
    "argmax": lambda x, p: {"index": x["x"].argmax(-1)},
}


class Op:
    """An op without state."""

    def __init__(self, spec):
        torch.set_num_threads(spec["threads"])
        if spec["op"] not in OPS:
            raise NotImplementedError(f"rivals/ops.py has no {spec['op']}")
        self.op, self.parameters, self.backward = OPS[spec["op"]], spec["parameters"], spec["backward"]
        self.inputs = {name: load(described) for name, described in spec["inputs"].items()}
        self.gradients = {name: load(described) for name, described in spec["gradients"].items()}
        if "qkv" in self.inputs:
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


class AdamW:
    """The bare fused step; a bf16 gradient is widened and a bf16 copy written by passes of their own, as trainers do."""

    def __init__(self, spec):
        torch.set_num_threads(spec["threads"])
        self.inputs = {name: load(described) for name, described in spec["inputs"].items()}
        p = self.inputs["p"].requires_grad_()
        decay = spec["parameters"].get("decay", 0)
        self.optimizer = torch.optim.AdamW([p], lr=1e-2, weight_decay=decay, fused=True)
        self.optimizer.state[p] = {
            "step": torch.tensor(0.0),
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
        return write(folder, results if self.copy is None else {**results, "copy": self.copy})


def write(folder, tensors):
    """Writes tensors as float32; gives their files."""
    files = {}
    for name, tensor in tensors.items():
        files[name] = os.path.join(folder, f"output-{name}.bin")
        tensor.detach().to(torch.float32).contiguous().numpy().tofile(files[name])
    return files


serve(lambda spec: AdamW(spec) if spec["op"] == "adamw" else Op(spec))
