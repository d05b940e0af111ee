"""HTML reports of runs: what an evaluation knows is gathered for the pages and pictures of `mmreid_jax.visualize`."""
