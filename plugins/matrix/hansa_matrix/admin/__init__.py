"""What an operator asks of a Matrix network."""
