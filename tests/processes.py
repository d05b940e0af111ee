"""Programs in processes of their own, alone or two of two devices each, joined by jax.distributed on this machine."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]


def run_two(program, *arguments, timeout=300):
    """Runs a program (Python code) twice and waits for both; what each printed.

    Where one fails, or both take longer than `timeout` seconds, none is left, and what they said is the error.
    """
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
    with contextlib.ExitStack() as stack:
        # Files, not pipes: one that nobody reads would stop its writer, and thereby the other process.
        said = [[stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)] for _ in range(2)]
        processes = [
            subprocess.Popen(command, cwd=ROOT, env={**environment, "JAX_PROCESS_ID": str(i)}, stdout=out, stderr=err)
            for i, (out, err) in enumerate(said)
        ]
        end = time.monotonic() + timeout
        while time.monotonic() < end and {each.poll() for each in processes} <= {None, 0}:
            if all(each.poll() == 0 for each in processes):
                break
            time.sleep(0.05)
        codes = [each.poll() for each in processes]
        for process in processes:
            process.kill()
            process.wait()
        texts = [[(file.seek(0), file.read())[1] for file in files] for files in said]
    assert codes == [0, 0], "\n".join([f"exit codes {codes}", *(err[-3000:] for _, err in texts)])
    return [out for out, _ in texts]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with these arguments in a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
