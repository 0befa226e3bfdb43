"""Which numbers a device computes with."""

import torch

# What x86-64 and then ARM call the instructions, among torch's names of a CPU's capabilities.
INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether a device itself multiplies in bfloat16.

    Emulated it is many times slower than float32, which is exact besides.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in INSTRUCTIONS)
