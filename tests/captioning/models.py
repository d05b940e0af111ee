"""Tiny models with random weights, in the folders that transformers saves."""

from __future__ import annotations

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "man", "woman", "in", "red", "blue", "dark")
WORDS += ("jacket", "shirt", "with", "bag", "and", "jeans", "shoes", "the", ",", ".")
SIDE = 32


def save_blip(folder, seed=0):
    """BLIP of 32 x 32 images and 23 words."""
    import torch
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(seed)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name: WORDS.index(word) for name, word in (("bos", "[DEC]"), ("sep", "[SEP]"), ("pad", "[PAD]"))}
    text = {
        **size,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 64,
        **{f"{name}_token_id": value for name, value in ids.items()},
        "eos_token_id": ids["sep"],
    }
    config = BlipConfig(text_config=text, vision_config={**size, "image_size": SIDE, "patch_size": 8})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}, model_max_length=64, bos_token="[DEC]")
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    BlipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)


def save_chat(folder, seed=0):
    """A LLaMA that knows letters."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    letters = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
