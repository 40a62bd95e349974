"""What an operator asks of a running process, as JSON over its local socket."""
