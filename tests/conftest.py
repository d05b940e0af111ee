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


# Later versions of XLA may have other names and options, and end the process at one that they do not know.
KNOWN = importlib.metadata.version("jaxlib").startswith("0.10.")
add_flags("--xla_force_host_platform_device_count=8")
if KNOWN:
    # Small programs are not cut for several threads to compile, which costs a seventh: tests run side by side.
    add_flags("--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("MPLBACKEND", "Agg")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one test has compiled no other has to; workers (pytest-xdist) inherit the folder.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mmreid_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src import compiler  # noqa: E402

from mmreid_jax.training import compilation  # noqa: E402


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow what ``slow_cases`` names: some cases of a test whose others run by default."""
    for item in items:
        for mark in item.iter_markers("slow_cases"):
            if item.callspec.id.partition("@")[0] in mark.args:
                item.add_marker(pytest.mark.slow(short=True))


def pytest_collection_finish():
    """What is imported by now stays, and need not be looked through whenever a file of tests has ended."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def quick_compilation(request):
    """Compiles without costly optimisations and with XLA's older, quicker code generator, but for whole networks.

    A test runs what it compiles a few times on small arrays, so that compiling would take most of the time; a whole
    network is slower without, and long runs are compared with processes that compile as users do. Of IEEE's tiny
    network XLA makes NaN gradients in this way (op by op, or optimised, there are none).
    ``MMREID_OPTIMISED_TESTS=1`` compiles everything as users do. What the tests compile by themselves has the options,
    too, that the package gives to what it compiles.
    """
    node = request.node
    slow = node.get_closest_marker("slow")
    long_run = slow is not None and "/system/" in str(node.path) and not slow.kwargs.get("short")
    whole = long_run or node.get_closest_marker("xdist_group") is not None
    quick = not (whole or "ieee" in node.nodeid or os.environ.get("MMREID_OPTIMISED_TESTS"))
    original = compiler.get_compile_options

    def get_compile_options(*args, env_options_overrides=None, **kwargs):
        chosen = {} if jax.config.jax_enable_x64 else dict(compilation._WANTED)
        if quick:
            chosen["xla_cpu_use_fusion_emitters"] = False
        return original(*args, env_options_overrides={**chosen, **(env_options_overrides or {})}, **kwargs)

    # Not the test's own monkeypatch, which it may undo in the middle.
    with pytest.MonkeyPatch.context() as patch:
        # JAX has no public way to compile everything with an option.
        if KNOWN:
            patch.setattr(compiler, "get_compile_options", get_compile_options)
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


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Drawn once per session, in the way in which a run draws them."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def small(data_dir):
    """A config that trains in seconds."""
    from configs import demo

    def make(**changes):
        config = demo.get_config()
        config.data.data_dir = str(data_dir)
        config.data.drawn_identities = 6
        config.data.drawn_images = 6
        config.data.image_size = (32, 16)
        config.data.padding = 2
        config.data.threads = 1
        config.model.backbone = "vit_micro"
        config.init.backbone = ""
        config.train.identities_per_batch = 4
        config.train.images_per_identity = 2
        config.train.eval_every = 2
        config.optim.epochs = 2
        config.mtt.optim.epochs = 1
        config.mtt.batch_size = 4
        config.eval.batch_size = 16
        config.eval.report = False
        config.eval.missing_modalities = False
        config.task = "train"
        for path, value in changes.items():
            node = config
            *parents, leaf = path.split("__")
            for parent in parents:
                node = node[parent]
            node[leaf] = value
        return config.lock()

    return make


@pytest.fixture
def tiny_run(data_dir):
    """A config of a method that trains in seconds on drawn people."""
    from mmreid_jax.testing import tiny

    def make(method, **changes):
        common = {
            "data__drawn": True,
            "data__data_dir": str(data_dir),
            "data__drawn_identities": 6,
            "data__drawn_images": 12,
            "data__padding": 2,
            "data__threads": 1,
            "train__images_per_identity": 2,
            "train__eval_every": 2,
            "optim__epochs": 2,
            "eval__batch_size": 16,
            "eval__report": False,
        }
        return tiny.config(method, **{**common, **changes}).lock()

    return make
