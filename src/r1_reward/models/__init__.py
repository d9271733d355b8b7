"""A checkpoint: loaded, sized, adapted, given a scalar head; and the tiny one."""
