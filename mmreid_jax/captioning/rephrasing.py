"""Other words for captions by a chat model such as Vicuna-7B v1.5, as TVI-LFM (NeurIPS 2024) augments its texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmreid_jax.captioning import frameworks, prompts
from mmreid_jax.captioning.progress import Journal

TEMPERATURE = 0.7
NEW_TOKENS = 1024


@dataclasses.dataclass(frozen=True)
class ChatModel:
    """A model that completes texts.

    Attributes:
      encode: text -> token ids, with the special tokens that begin it.
      generate: (token ids, seed) -> these ids and those that the model added.
      decode: token ids -> text without special tokens.
    """

    encode: Callable[[str], Sequence[int]]
    generate: Callable[[Sequence[int], int], Sequence[int]]
    decode: Callable[[Sequence[int]], str]

    def complete(self, prompt: str, seed: int) -> str:
        """What the model adds to `prompt`, without blanks around it; the same for the same seed."""
        ids = self.encode(prompt)
        return self.decode(self.generate(ids, seed)[len(ids) :]).strip()


def load(
    folder: str | Path, device: str = "auto", temperature: float = TEMPERATURE, new_tokens: int = NEW_TOKENS
) -> ChatModel:
    """A causal language model of transformers from a folder; in half precision on a GPU.

    Args:
      folder: of the model and its tokenizer.
      device: ``cpu``, ``cuda`` or ``auto``.
      temperature: of the sampling; 0 takes the most probable token.
      new_tokens: most tokens of an answer.

    Raises:
      UserError: the folder is missing or does not hold what it should, or PyTorch is not installed.
    """
    place = frameworks.model_folder(folder)
    torch, transformers = frameworks.load()
    on = frameworks.device_of(torch, device)
    with frameworks.reading(place, "the tokenizer"):
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
    kind = torch.float16 if on.type == "cuda" else torch.float32
    with frameworks.reading(place, "the model"):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(place, local_files_only=True, dtype=kind)
    model = model.to(on).eval()
    sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}

    def generate(ids: Sequence[int], seed: int) -> Sequence[int]:
        torch.manual_seed(seed)
        given = torch.tensor([list(ids)], device=on)
        with torch.no_grad():
            answer = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=new_tokens,
                repetition_penalty=1.0,
                pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
                **sampling,
            )
        return answer[0].tolist()

    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    return ChatModel(lambda text: tokenizer(text)["input_ids"], generate, decode)


def rephrase(
    model: ChatModel,
    captions: Mapping[str, str],
    journal: Journal,
    *,
    request: str = prompts.REQUEST,
    change: Callable[[str], str] = lambda text: text,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, str]:
    """One rephrasing of every caption; those in the journal are not made again.

    What is drawn for a caption depends on the seed and its position alone, so that an interrupted run gives the same
    texts. Where the model answers nothing, the caption stays as it is.

    Args:
      model: the chat model.
      captions: key -> caption.
      journal: receives every rephrasing before the next one begins.
      request: what follows the caption in the message.
      change: is applied to every answer (`mmreid_jax.captioning.colours.strip_colours` for infrared captions).
      seed: of the sampling.
      progress: is told how many more texts are there.

    Returns:
      Key -> rephrasing, in the order of `captions`.
    """
    progress(sum(key in journal.done for key in captions))
    for position, (key, caption) in enumerate(captions.items()):
        if key not in journal.done:
            answer = model.complete(prompts.rephrase(caption, request), seed * 1_000_003 + position)
            journal.add({key: change(answer or caption)})
            progress(1)
    return {key: journal.done[key] for key in captions}
