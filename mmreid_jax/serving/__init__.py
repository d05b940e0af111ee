"""A page on this machine that searches a gallery by an image or by words."""
