"""Small drawn sets."""

SMALL = {"identities": 2, "images_per_identity": 3, "cameras": 2}
