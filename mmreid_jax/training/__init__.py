"""State, jitted steps, optimisers, schedules, checkpoints and logs."""
