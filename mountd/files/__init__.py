"""Every touch of a mounted path, made by a process that can be killed."""
