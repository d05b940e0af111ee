"""How a chat model is asked to rephrase a caption, as TVI-LFM (NeurIPS 2024) asks Vicuna-7B v1.5."""

from __future__ import annotations

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""What Vicuna 1.1 and 1.5 are told first."""

REQUEST = "rephrase the person's description above using similar words. Answer:"
"""What follows a caption at once, without a blank, in the authors' messages."""


def vicuna(message: str) -> str:
    """The text that a model of Vicuna's 1.1 template completes after one message of a user."""
    return f"{SYSTEM} USER: {message} ASSISTANT:"


def rephrase(caption: str, request: str = REQUEST) -> str:
    """The text whose completion is a rephrasing of `caption`."""
    return vicuna(caption + request)
