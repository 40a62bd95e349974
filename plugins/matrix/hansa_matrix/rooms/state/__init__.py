"""The state of a room after each event: groups, and what holes in the history make of them."""
