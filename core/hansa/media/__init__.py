"""The media service: files of all networks, and links by which people of other networks open them."""
