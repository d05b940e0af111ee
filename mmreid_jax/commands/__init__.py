"""Commands of ``python -m mmreid_jax``: each reads its flags, calls the library and prints what came of it."""
