// The packed streams byte for byte, by the digests of what a plain packer made, which went through the weights one by one. That
// the streams mean the right products is what the other tests show; here, that no faster packer changes them.
#include <algorithm>
#include <cstring>
#include <random>

#include "kernels/packing.h"
#include "test/harness.h"

namespace openwork::test {
namespace {

constexpr int kProblems = 120;

class Digest {
 public:
  template <class T>
  void add(const T* values, int64_t count) {
    // FNV-1a.
    const auto* bytes = reinterpret_cast<const uint8_t*>(values);
    for (size_t i = 0; i < static_cast<size_t>(count) * sizeof(T); ++i) value_ = (value_ ^ bytes[i]) * 1099511628211u;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 14695981039346656037u;
};

void add(Digest& digest, const PackedWeights& w) {
  const PackedView v = w.view();
  const FormInfo info = form_info(w.form());
  const int64_t counts[] = {w.groups(), w.steps(), w.bytes(), v.span, v.runs, v.run_bytes};
  digest.add(counts, 6);
  digest.add(v.group_data, w.groups() + 1);
  digest.add(v.group_step, w.groups() + 1);
  if (info.body == Body::windows) digest.add(v.run_steps, w.groups() * v.runs);
  if (info.body == Body::blocks) digest.add(v.run_steps, w.channels() / info.share);
  digest.add(v.advance, w.steps());
  digest.add(v.data, w.bytes());
  if (v.order) digest.add(v.order, w.channels());
  digest.add(w.column_sums().data(), static_cast<int64_t>(w.column_sums().size()));
}

// An instruction set that has every form, with so many strips at once: packing runs no kernel.
KernelTable table_of(int strips) {
  KernelTable table = *available_tables().back();
  for (int f = 0; f < kForms; ++f) {
    const FormInfo info = form_info(static_cast<Form>(f));
    // A matrix unit's are its own.
    if (info.body != Body::tiles) table.group_strips[f] = info.body == Body::windows ? std::max(strips, info.share) : strips;
    for (auto& kernels : table.gemm) kernels[f] = table.gemm[0][0];
  }
  return table;
}

WeightShape draw_shape(std::mt19937& rng) {
  const auto up_to = [&](unsigned most) { return static_cast<int64_t>(1 + rng() % most); };
  const unsigned kind = rng() % 8;
  if (kind == 0) return {up_to(1300), up_to(100)};  // several spans
  if (kind < 4) return {up_to(150), up_to(300)};
  WeightShape s{up_to(140), up_to(40), up_to(4), up_to(5)};
  if (kind == 6) s.groups = up_to(9), s.n = s.groups * (rng() % 3 ? up_to(20) : 64), s.channels = up_to(20);
  if (kind == 7) s.groups = s.n, s.channels = 1;
  s.merged = rng() % 3 == 0;
  s.copied = !s.merged && rng() % 2 == 0;
  return s;
}

// From all to few kept, alike for every channel; from none to all by channel, which is worth an order; the same for `share`
// neighbours.
bool draw_kept(std::mt19937& rng, unsigned kind, int64_t channel) {
  static constexpr unsigned kPercent[] = {100, 75, 50, 25, 6};
  return rng() % 100 < (kind < 5 ? kPercent[kind] : static_cast<unsigned>(channel % 97));
}

void put(uint8_t* to, Type type, bool kept, std::mt19937& rng) {
  if (type == Type::i8) {
    *to = static_cast<uint8_t>(kept ? static_cast<int>(rng() % 255) - 127 : 0);
    return;
  }
  // Finite numbers of either sign, and zeros of either sign.
  const auto random = static_cast<uint32_t>(rng());
  const uint32_t bits = (random & 0x80000000) | (kept ? (64 << 23) + (random & 0x3fffffff) : 0);
  const auto size = static_cast<size_t>(element_bytes(type));
  std::memcpy(to, reinterpret_cast<const char*>(&bits) + sizeof bits - size, size);
}

std::vector<uint8_t> draw_weight(std::mt19937& rng, const WeightShape& s, Type type) {
  const unsigned kind = rng() % 6, share = 1u << rng() % 3;
  const int64_t bytes = element_bytes(type);
  std::vector<uint8_t> weight(static_cast<size_t>(s.n * s.k() * bytes));
  std::vector<bool> kept(static_cast<size_t>(s.k()));
  for (int64_t c = 0; c < s.n; ++c)
    for (int64_t i = 0; i < s.k(); ++i) {
      if (c % share == 0) kept[static_cast<size_t>(i)] = draw_kept(rng, kind, c);
      put(weight.data() + (c * s.k() + i) * bytes, type, kept[static_cast<size_t>(i)], rng);
    }
  return weight;
}

struct Expected {
  Form form;
  uint64_t digest;
};
constexpr Expected kExpected[] = {
    {Form::dense, 0xf42edc7ca7d2d52a},
    {Form::window8, 0x1f648a0dbe27b5f4},
    {Form::window8x2, 0x38ec0beff7a96709},
    {Form::window8x4, 0x7bf7db6c39079b43},
    {Form::window8packed, 0xbf3d0a4485544651},
    {Form::window16, 0x379a9fc684c59a81},
    {Form::window16x2, 0x6fee652895dde56d},
    {Form::window16x4, 0xcfbbea07f2e8f774},
    {Form::window16packed, 0xbbdc439f2e231ae5},
    {Form::window64, 0xc3026c1ac36a4bc8},
    {Form::window64x2, 0xd5975f76761afeff},
    {Form::window64x4, 0x4a79301bbfa33833},
    {Form::blocks1, 0xbc74e836c6b9160f},
    {Form::blocks2, 0x442f8e681f95d856},
    {Form::blocks4, 0xa83f480bdda027f8},
    {Form::blocks8, 0xf7ac8743d719e724},
    {Form::depthwise, 0x472969257f6a1088},
    {Form::tiles, 0x81796c46c7dff281},
    {Form::tiles16, 0xc614a3e0db0b134d},
    {Form::tiles32, 0xee9418e885f534c7},
    {Form::tiles64, 0x74048ade586c007d},
    {Form::tiles128, 0x19478825ccb476},
    {Form::tilespacked, 0x9d4520769c9af236},
};

}  // namespace

TEST(packing_makes_the_same_bytes_as_ever) {
  Digest found[kForms];
  for (unsigned seed = 0; seed < kProblems; ++seed) {
    std::mt19937 rng(seed);
    const KernelTable table = table_of(1 << seed % 3);
    const WeightShape shape = draw_shape(rng);
    const auto type = static_cast<Type>(rng() % 3);
    const std::vector<uint8_t> weight = draw_weight(rng, shape, type);
    for (int f = 0; f < kForms; ++f) {
      const auto form = static_cast<Form>(f);
      if (refusal(shape, type, form, table).empty() && (type == Type::i8 || !form_info(form).few_rows()))
        add(found[f], *PackedWeights::pack(shape, type, weight.data(), form, table));
    }
  }
  for (const Expected& expected : kExpected) {
    const uint64_t digest = found[static_cast<int>(expected.form)].value();
    CHECK_SAY(digest == expected.digest, std::string(form_info(expected.form).name) + " " + std::to_string(digest));
  }
  CHECK(std::size(kExpected) == kForms);
}

}  // namespace openwork::test
