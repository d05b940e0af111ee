"""Programs in processes of their own, alone or two of two devices each, joined by jax.distributed on this machine."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def start_two(program, *arguments):
    """Starts a program (Python code) twice; their output is text."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", program, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(command, cwd=ROOT, env={**environment, "JAX_PROCESS_ID": str(i)}, **pipes) for i in range(2)
    ]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments in a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
