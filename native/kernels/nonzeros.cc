#include "kernels/nonzeros.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace openwork {
namespace {

static_assert(std::endian::native == std::endian::little, "A word's first byte is its lowest, here and in the packed forms.");

// Of eight bytes, the first being the lowest: bit i is set where byte i is not zero.
uint64_t nonzero_bytes(const uint8_t* p) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  uint64_t eight;
  std::memcpy(&eight, p, sizeof eight);
  // A carry into a byte's top bit tells that its lower ones are not all zero.
  const uint64_t top = (((eight & kLow) + kLow) | eight) & ~kLow;
  // The multiplier moves the bit of byte i to bit 56 + i.
  return (top >> 7) * 0x0102040810204080 >> 56;
}

// Of floats: -0 multiplies to nothing either, so the sign does not count.
template <class Word>
uint64_t nonzero_floats(const uint8_t* p, int64_t count) {
  uint64_t bits = 0;
  for (int64_t i = 0; i < count; ++i) {
    Word word;
    std::memcpy(&word, p + i * static_cast<int64_t>(sizeof word), sizeof word);
    bits |= static_cast<uint64_t>(static_cast<Word>(word << 1) != 0) << i;
  }
  return bits;
}

uint64_t nonzero_i8(const uint8_t* p, int64_t count) {
  uint64_t bits = 0;
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) bits |= nonzero_bytes(p + i) << i;
  for (; i < count; ++i) bits |= static_cast<uint64_t>(p[i] != 0) << i;
  return bits;
}

uint64_t nonzero(const uint8_t* p, Type type, int64_t count) {
  if (type == Type::i8) return nonzero_i8(p, count);
  return type == Type::bf16 ? nonzero_floats<uint16_t>(p, count) : nonzero_floats<uint32_t>(p, count);
}

}  // namespace

NonZeros::NonZeros(const WeightReader& reader, int64_t lanes, int64_t share)
    : reader_(reader), lanes_(lanes), share_(share), words_((reader.shape().run_elements() + 63) / 64), begin_(words_),
      bits_(static_cast<size_t>(lanes * (words_ + 1)), 0) {}

void NonZeros::add(int64_t lane, int64_t unit, int64_t run) {
  const WeightShape& shape = reader_.shape();
  // The taps of a run lie side by side where each pixel is the channel's own.
  const int64_t together = shape.groups == 1 ? shape.run_taps() : 1;
  for (int64_t c = unit * share_; c < std::min((unit + 1) * share_, shape.n); ++c)
    for (int64_t tap = 0; tap < shape.run_taps(); tap += together)
      add(lane, reader_.taps(c, run * shape.run_taps() + tap), together * shape.channels,
          tap * shape.pixel() + reader_.base(c));
}

void NonZeros::add(int64_t lane, const uint8_t* weights, int64_t count, int64_t at) {
  begin_ = std::min(begin_, at / 64);
  end_ = std::max(end_, (at + count + 63) / 64);
  for (int64_t i = 0; i < count; i += 64, at += 64) {
    const int64_t elements = std::min<int64_t>(64, count - i);
    const uint64_t bits = nonzero(weights + i * element_bytes(reader_.type()), reader_.type(), elements);
    const int64_t shift = at % 64;
    word(at / 64)[lane] |= bits << shift;
    if (shift) word(at / 64 + 1)[lane] |= bits >> (64 - shift);
  }
}

int64_t NonZeros::count(int64_t lane) const {
  int64_t total = 0;
  for (int64_t w = begin_; w < end_; ++w) total += std::popcount(word(w)[lane]);
  return total;
}

void NonZeros::restart() {
  begin_ = words_;
  end_ = 0;
}

}  // namespace openwork
