#include "kernels/nonzeros.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace openwork {
namespace {

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

NonZeros::NonZeros(const WeightReader& reader, int64_t units, int64_t share)
    : units_(units), runs_(reader.shape().runs()), words_((reader.shape().run_elements() + 63) / 64),
      bits_(static_cast<size_t>(units_ * runs_ * words_), 0) {
  for (int64_t c = 0; c < reader.shape().n; ++c) add_channel(reader, c, c / share);
}

void NonZeros::add_channel(const WeightReader& reader, int64_t channel, int64_t unit) {
  const WeightShape& shape = reader.shape();
  // The taps of a run lie side by side where each pixel is the channel's own.
  const int64_t together = shape.groups == 1 ? shape.run_taps() : 1, base = reader.base(channel);
  for (int64_t tap = 0; tap < shape.taps(); tap += together) {
    uint64_t* bits = bits_.data() + (unit * runs_ + tap / shape.run_taps()) * words_;
    add(reader.taps(channel, tap), reader.type(), together * shape.channels, bits, tap % shape.run_taps() * shape.pixel() + base);
  }
}

void NonZeros::add(const uint8_t* weights, Type type, int64_t count, uint64_t* run, int64_t at) {
  for (int64_t i = 0; i < count; i += 64, at += 64) {
    const uint64_t bits = nonzero(weights + i * element_bytes(type), type, std::min<int64_t>(64, count - i));
    const int64_t word = at / 64, shift = at % 64;
    run[word] |= bits << shift;
    if (shift && bits >> (64 - shift)) run[word + 1] |= bits >> (64 - shift);
  }
}

int64_t NonZeros::count(int64_t unit) const {
  int64_t total = 0;
  for (const uint64_t *word = run(unit, 0), *end = word + runs_ * words_; word < end; ++word) total += std::popcount(*word);
  return total;
}

}  // namespace openwork
