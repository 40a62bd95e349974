"""The admin API of a running process: JSON over its local socket."""
