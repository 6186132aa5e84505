"""Writes the safetensors files of this folder with the reference implementation (safetensors 0.8.0).

    python make.py

The bytes of every tensor are 0, 1, 2, … modulo 256, so that a misplaced read shows.
"""

import ctypes

from safetensors import TensorSpec, serialize_file

DTYPES = {
    "bool": 8, "uint8": 8, "int8": 8, "float8_e5m2": 8, "float8_e4m3fn": 8, "float8_e8m0fnu": 8, "float8_e4m3fnuz": 8,
    "float8_e5m2fnuz": 8, "int16": 16, "uint16": 16, "float16": 16, "bfloat16": 16, "int32": 32, "uint32": 32,
    "float32": 32, "complex64": 64, "float64": 64, "int64": 64, "uint64": 64, "float4_e2m1fn_x2": 4,
}


def write(name, tensors, metadata=None):
    buffers, specs = [], {}
    for key, (dtype, shape) in tensors.items():
        count = 1
        for size in shape:
            count *= size
        data = bytes(i % 256 for i in range(count * DTYPES[dtype] // 8))
        buffers.append(ctypes.create_string_buffer(data, max(len(data), 1)))
        # The packed type takes its storage shape and doubles the last size itself.
        stored = shape[:-1] + [shape[-1] // 2] if DTYPES[dtype] == 4 else shape
        address = ctypes.addressof(buffers[-1])
        specs[key] = TensorSpec(dtype=dtype, shape=stored, data_ptr=address, data_len=len(data))
    serialize_file(specs, name, metadata)


write("every-dtype.safetensors", {f"{n}.{d}": (d, [2, 3, 2]) for d in DTYPES for n in ("b", "a")}, {"format": "pt"})
write("empty.safetensors", {})
write(
    "names.safetensors",
    {
        "10": ("float32", [2]), "9": ("float32", [2]), "scalar": ("float32", []), "empty": ("float32", [3, 0, 2]),
        "empty too": ("float32", [0]), "__proto__": ("float32", [1]), "constructor": ("float32", [1]),
        'quote " back \\ slash / tab \t bell \x07 del \x7f': ("int64", [1]), "é": ("bfloat16", [3]), "日本": ("bfloat16", [1]),
        "\uffee": ("bfloat16", [2]), "🦊": ("bfloat16", [2]), "line\u2028separator": ("uint8", [5]), "x" * 512: ("uint8", [1]),
        "rank8": ("uint8", [1, 2, 1, 1, 2, 1, 1, 1]),
    },
    {"note": 'é \u2028 \x01 " \\ / \n'},
)
