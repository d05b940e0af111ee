"""Shared set-up: eight virtual CPU devices, and a float64 mode for comparisons with golden numbers."""

import atexit
import gc
import importlib.metadata
import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")


def add_flags(*flags):
    """Adds flags of XLA, but where the environment has set one it stays."""
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join([given, *(flag for flag in flags if flag.split("=")[0] not in given)])


add_flags("--xla_force_host_platform_device_count=8")
# XLA ends a process that names a flag it does not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # What `mmreid_jax.training.compilation` chooses for the package, for what the tests compile by themselves, too.
    add_flags("--xla_cpu_experimental_ynn_fusion_type=reduce")
    if not os.environ.get("MMREID_OPTIMISED_TESTS"):
        # The older code generator compiles twice as fast.
        add_flags("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("MPLBACKEND", "Agg")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one test has compiled no other has to; workers (pytest-xdist) inherit the folder.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mmreid_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Compiles without costly optimisations, but for whole networks.

    A test runs what it compiles a few times on small arrays, so that compiling would take most of the time; a whole
    network is slower without, and so are whole runs, which start processes that compile as users do. Of IEEE's tiny
    network XLA makes NaN gradients in this way (op by op, or optimised, there are none).
    ``MMREID_OPTIMISED_TESTS=1`` compiles everything as users do.
    """
    whole = request.node.get_closest_marker("xdist_group") is not None
    quick = not (whole or "ieee" in request.node.name or os.environ.get("MMREID_OPTIMISED_TESTS"))
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True, scope="module")
def forgotten_programs():
    """What a file of tests compiled must not add up over the files; on disk it stays."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def x64():
    """Runs a test with 64-bit types."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="session", autouse=True)
def parsed_flags():
    """Lets grain and TFDS read absl flags outside of ``app.run``."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
