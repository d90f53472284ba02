// The operators on rows of tables, and on the vectors that they make, on every instruction set against plain loops: the same
// bits. Inputs end at the end of readable memory, outputs at the end of writable memory.
#include <memory>

#include "test/op_checks.h"

namespace openwork {
namespace {

constexpr int64_t kRows = 11, kBags = 9;

// A table of floats or of bytes, and the numbers that its rows stand for.
struct PlainTable {
  int64_t width;
  Floats numbers, scales;
  std::vector<uint8_t> bytes, zero_points;

  PlainTable(Random& random, int64_t width_, bool quantized) : width(width_), numbers(random.floats(kRows * width_)) {
    if (!quantized) return;
    for (int64_t r = 0; r < kRows; ++r) {
      scales.push_back(0.01f + 0.03f * static_cast<float>(random.below(7)));
      zero_points.push_back(static_cast<uint8_t>(random.below(256)));
      for (int64_t i = 0; i < width; ++i) {
        bytes.push_back(static_cast<uint8_t>(random.below(256)));
        numbers[r * width + i] = static_cast<float>(bytes.back() - zero_points.back()) * scales.back();
      }
    }
  }
};

struct PlainBags {
  std::vector<int64_t> ids, offsets;
  Floats weights;
};

Floats plain_bag(const PlainTable& t, const PlainBags& b, int64_t begin, int64_t end, BagMode mode, bool weighted) {
  Floats total(t.width, 0.0f);
  for (int64_t at = begin; at < end; ++at)
    for (int64_t i = 0; i < t.width; ++i) {
      const float v = t.numbers[b.ids[at] * t.width + i];
      if (at == begin) total[i] = weighted ? v * b.weights[at] : v;
      else if (mode == BagMode::max) total[i] = max_of(total[i], v);
      else total[i] = weighted ? std::fma(v, b.weights[at], total[i]) : total[i] + v;
    }
  if (mode == BagMode::mean && end > begin)
    for (float& v : total) v /= static_cast<float>(end - begin);
  return total;
}

struct BagCase {
  BagMode mode;
  bool weighted, quantized, offsets, last_given;
};

PlainBags random_bags(Random& random, bool offsets, bool last_given) {
  PlainBags bags;
  int64_t count = 4 * kBags;
  if (offsets) {
    count = 1;
    for (int64_t b = 0; b < kBags; ++b) bags.offsets.push_back(count), count += random.below(4) * random.below(8);
    if (last_given) bags.offsets.push_back(count++);
  }
  for (int64_t i = 0; i < count; ++i) bags.ids.push_back(random.below(kRows));
  bags.weights = random.floats(count);
  return bags;
}

void check_bags(int64_t width, const BagCase& c, unsigned seed) {
  Random random{seed};
  const PlainTable table(random, width, c.quantized);
  const PlainBags bags = random_bags(random, c.offsets, c.last_given);
  const auto total = static_cast<int64_t>(bags.ids.size());
  EmbeddingBagArgs args;
  args.mode = c.mode, args.bags = kBags, args.end = total, args.last_given = c.last_given;
  args.stride = 4, args.first = 1, args.count = 2;
  // The rows of y lie further apart than they are wide.
  args.y_stride = width + 3;
  Floats expected(kBags * args.y_stride, 0.0f);
  for (int64_t b = 0; b < kBags; ++b) {
    int64_t begin = 4 * b + 1, end = begin + 2;
    if (c.offsets) begin = bags.offsets[b], end = b + 1 < kBags || c.last_given ? bags.offsets[b + 1] : total;
    const Floats made = plain_bag(table, bags, begin, end, c.mode, c.weighted);
    std::copy(made.begin(), made.end(), expected.begin() + b * args.y_stride);
  }
  const End<float> numbers(table.numbers), scales(table.scales), weights(bags.weights), y(kBags * args.y_stride);
  const End<uint8_t> bytes(table.bytes), zero_points(table.zero_points);
  const End<int64_t> ids(bags.ids), offsets(bags.offsets);
  args.table = {numbers.data(), width, nullptr, nullptr};
  if (c.quantized) args.table = {bytes.data(), width, scales.data(), zero_points.data()};
  args.ids = ids.data();
  args.offsets = c.offsets ? offsets.data() : nullptr;
  args.weights = c.weighted ? weights.data() : nullptr;
  args.y = y.data();
  std::memset(y.data(), 0, expected.size() * sizeof(float));
  on_every_isa(kBags, [&](auto& t, int64_t i, int64_t j) { t.embedding_bag(args, i, j); }, [&] { return y.holds(expected); },
               text("embedding bag", {width, static_cast<int>(c.mode), c.weighted, c.quantized, c.offsets, c.last_given}, seed));
}

}  // namespace

TEST(embedding_bag_equals_plain_loops) {
  for (const int64_t width : kWidths)
    for (const BagMode mode : {BagMode::sum, BagMode::mean, BagMode::max})
      for (int bits = 0; bits < 16; ++bits) {
        const BagCase c{mode, (bits & 1) > 0, (bits & 2) > 0, (bits & 4) > 0, (bits & 8) > 0};
        if ((c.weighted && mode != BagMode::sum) || (c.last_given && !c.offsets)) continue;
        check_bags(width, c, static_cast<unsigned>(width * 16 + bits));
      }
}

TEST(interaction_equals_plain_loops) {
  constexpr int64_t kBatch = 5;
  for (const int64_t width : kWidths)
    for (const int64_t vectors : {1, 2, 4, 5, 27})
      for (const bool bytes : {false, true}) {
        Random random{static_cast<unsigned>(width * 100 + vectors)};
        // One vector alone, and the others side by side, further apart than they are wide.
        const int64_t others = vectors - 1, apart = others * width + 2, made = width + vectors * (vectors - 1) / 2;
        const Floats first = random.floats(kBatch * width), rest = random.floats(kBatch * apart);
        Floats expected;
        for (int64_t b = 0; b < kBatch; ++b) {
          const auto row = [&](int64_t v) { return v == 0 ? &first[b * width] : &rest[b * apart + (v - 1) * width]; };
          expected.insert(expected.end(), row(0), row(0) + width);
          for (int64_t i = 0; i < vectors; ++i)
            for (int64_t j = 0; j < i; ++j) expected.push_back(dot16(row(i), row(j), width));
        }
        const End<float> alone(first), beside(rest), y(kBatch * made);
        const End<uint8_t> yq(kBatch * made);
        const Vectors x[] = {{alone.data(), width, 1}, {beside.data(), apart, others}};
        std::vector<const float*> rows(static_cast<size_t>(vectors));
        Floats room(interaction_row(vectors, width));
        const InteractionArgs args{x, vectors > 1 ? 2 : 1, vectors, width, bytes ? static_cast<void*>(yq.data()) : y.data(),
                                   made, bytes, kQuantizer, rows.data(), room.data()};
        on_every_isa(kBatch, [&](auto& t, int64_t i, int64_t j) { t.interaction(args, i, j); },
                     [&] { return bytes ? yq.holds(plain_quantize(expected, kQuantizer)) : y.holds(expected); },
                     text("interaction", {width, vectors, bytes}, random.seed));
      }
}

}  // namespace openwork
