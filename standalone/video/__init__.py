"""One video of the command: its job's key, its clips, and the folder in which they wait for the last one."""
