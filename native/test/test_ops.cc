// The float operators on every instruction set against plain loops that follow docs/arithmetic.md word for word: the same
// bits. Inputs end at the end of readable memory, outputs at the end of writable memory.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "test/harness.h"
#include "test/op_checks.h"
#include "test/plain_activation.h"

namespace openwork {
namespace {

float plain_gelu(float v) {
  const float a = min_of(std::fabs(v), 5.5f);
  const int piece = static_cast<int>(std::nearbyint(2.75 * a));
  float p = kGelu[kGeluDegree][piece];
  for (int i = kGeluDegree - 1; i >= 0; --i) p = std::fma(p, a, kGelu[i][piece]);
  return max_of(0.0f, v) - p;
}
float plain_exp(float v) {
  const float t = min_of(max_of(v, -87.0f), 88.0f);
  const float n = std::nearbyint(t * kLog2e);
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, t));
  float p = kExp[kExpDegree];
  for (int i = kExpDegree - 1; i >= 0; --i) p = std::fma(p, r, kExp[i]);
  return std::ldexp(p, static_cast<int>(n));
}
}  // namespace

TEST(quantize_equals_plain_loops) {
  for (const int64_t count : {int64_t{1}, int64_t{16}, int64_t{2047}, int64_t{4100}}) {
    Random random{static_cast<unsigned>(count)};
    Floats a = random.floats(count, 4.0f);
    a[0] = -INFINITY;
    a[count - 1] = 1e30f;
    if (count > 4) a[1] = INFINITY, a[2] = -0.0f, a[3] = -1e30f;
    const int64_t units = (count + kElementBlock - 1) / kElementBlock;
    const End<float> ga(a);
    const End<uint8_t> yq(count);
    const ElementArgs args{ga.data(), count, yq.data(), kQuantizer, {}};
    on_every_isa(units, [&](auto& t, int64_t i, int64_t j) { t.quantize(args, i, j); },
                 [&] { return yq.holds(plain_quantize(a, kQuantizer)); }, text("quantize", {count}, random.seed));
  }
}

TEST(dequantize_equals_plain_loops) {
  for (const int64_t count : {int64_t{1}, int64_t{17}, int64_t{2048}, int64_t{4100}})
    for (const int zero_point : {0, 119, 255}) {
      Random random{static_cast<unsigned>(count)};
      std::vector<uint8_t> x;
      Floats expected;
      for (int64_t i = 0; i < count; ++i) {
        x.push_back(static_cast<uint8_t>(random.below(256)));
        expected.push_back(static_cast<float>(x.back() - zero_point) * 0.37f);
      }
      const End<uint8_t> gx(x);
      const End<float> y(count);
      const DequantizeArgs args{gx.data(), count, 0.37f, zero_point, y.data()};
      on_every_isa((count + kElementBlock - 1) / kElementBlock, [&](auto& t, int64_t i, int64_t j) { t.dequantize(args, i, j); },
                   [&] { return y.holds(expected); }, text("dequantize", {count, zero_point}, random.seed));
    }
}

TEST(min_max_equals_plain_loops_and_passes_over_nan) {
  for (const int64_t count : {int64_t{1}, int64_t{17}, int64_t{300}, int64_t{4100}})
    for (const int64_t parts : {1, 3, 16}) {
      Random random{static_cast<unsigned>(count + parts)};
      Floats x = random.floats(count);
      for (int64_t i = 0; i < count; i += 7) x[i] = i % 2 ? NAN : x[i];
      if (count > 40) x[33] = -INFINITY, x[count - 1] = 1e30f;
      const int64_t strips = (count + 15) / 16;
      Floats expected;
      for (int64_t part = 0; part < parts; ++part) {
        float least = 0.0f, greatest = 0.0f;
        for (int64_t i = strips * part / parts * 16; i < std::min(count, strips * (part + 1) / parts * 16); ++i) {
          least = x[i] < least ? x[i] : least;
          greatest = x[i] > greatest ? x[i] : greatest;
        }
        expected.push_back(least), expected.push_back(greatest);
      }
      const End<float> gx(x), y(2 * parts);
      const MinMaxArgs args{gx.data(), count, parts, y.data()};
      on_every_isa(parts, [&](auto& t, int64_t i, int64_t j) { t.min_max(args, i, j); }, [&] { return y.holds(expected); },
                   text("min_max", {count, parts}, random.seed));
    }
}

TEST(run_scales_equals_plain_loops) {
  constexpr int64_t kChannels = 70;
  Random random{5};
  std::vector<int32_t> sums, start;
  const Floats scale = random.floats(kChannels);
  Floats product;
  for (int64_t c = 0; c < kChannels; ++c) {
    sums.push_back(static_cast<int32_t>(random.below(16'000'000)) - 8'000'000);
    start.push_back(-119 * sums.back());
    product.push_back(0.37f * scale[c]);
  }
  const End<int32_t> gs(sums), made(kChannels);
  const End<float> gf(scale), y(kChannels);
  const RunScalesArgs args{gs.data(), gf.data(), -119, 0.37f, made.data(), y.data()};
  on_every_isa(kChannels, [&](auto& t, int64_t i, int64_t j) { t.run_scales(args, i, j); },
               [&] { return made.holds(start) && y.holds(product); }, "run_scales");
}

// Half of a BF16's last bit is added, a little less where that bit is 0; NaN stays one.
TEST(round_bf16_goes_to_the_nearest_even) {
  for (const int64_t count : {int64_t{5}, int64_t{16}, int64_t{4100}}) {
    Random random{static_cast<unsigned>(count)};
    Floats x = random.floats(count);
    x[0] = 0x1.01p0f, x[1] = 0x1.03p0f, x[2] = -INFINITY, x[3] = 0x1.fffffep127f, x[4] = 0x1p-140f;
    std::vector<uint16_t> expected;
    for (const float v : x) {
      uint32_t bits;
      std::memcpy(&bits, &v, sizeof bits);
      expected.push_back(static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16));
    }
    const End<float> gx(x);
    const End<uint16_t> y(count);
    const RoundArgs args{gx.data(), count, y.data()};
    on_every_isa((count + kElementBlock - 1) / kElementBlock, [&](auto& t, int64_t i, int64_t j) { t.round_bf16(args, i, j); },
                 [&] { return y.holds(expected); }, text("round bf16", {count}, random.seed));
  }
}

TEST(copy_rows_equals_plain_loops) {
  for (const int64_t bytes : {1, 16, 63, 64, 65, 200})
    for (const bool looked_up : {false, true}) {
      Random random{static_cast<unsigned>(bytes)};
      constexpr int64_t kRows = 5;
      const int64_t stride = bytes + 7;
      std::vector<uint8_t> x(static_cast<size_t>(kRows * bytes)), table(256), expected(static_cast<size_t>(kRows * stride), 9);
      for (auto& v : x) v = static_cast<uint8_t>(random.below(256));
      for (auto& v : table) v = static_cast<uint8_t>(random.below(256));
      for (int64_t i = 0; i < kRows * bytes; ++i) {
        const uint8_t v = x[static_cast<size_t>(i)];
        expected[static_cast<size_t>(i / bytes * stride + 3 + i % bytes)] = looked_up ? table[v] : v;
      }
      const End<uint8_t> gx(x), gt(table), y(kRows * stride);
      std::memset(y.data(), 9, static_cast<size_t>(kRows * stride));
      const CopyRowsArgs args{gx.data(), bytes, bytes, looked_up ? gt.data() : nullptr, y.data() + 3, stride};
      on_every_isa(kRows, [&](auto& t, int64_t i, int64_t j) { t.copy_rows(args, i, j); }, [&] { return y.holds(expected); },
                   text("copy rows", {bytes, looked_up}, random.seed));
    }
}

TEST(quantize_takes_zero_points_at_both_ends_and_ties) {
  const Floats x{-0.5f, 0.5f, 1.5f, 2.5f, -1.5f, 300.0f, -300.0f, NAN, 254.5f, -254.5f};
  for (const int zero_point : {0, 128, 255}) {
    const Quantizer q{1.0f, zero_point};
    const End<float> a(x);
    const End<uint8_t> y(static_cast<int64_t>(x.size()));
    const ElementArgs args{a.data(), static_cast<int64_t>(x.size()), y.data(), q};
    on_every_isa(1, [&](auto& t, int64_t i, int64_t j) { t.quantize(args, i, j); },
                 [&] { return y.holds(plain_quantize(x, q)); }, "zero point " + std::to_string(zero_point));
  }
}

TEST(embedding_sum_equals_plain_loops) {
  for (const int64_t width : kWidths) {
    Random random{static_cast<unsigned>(width)};
    const int64_t length = 5, rows = 15;
    const Floats word = random.floats(11 * width), position = random.floats(7 * width), type = random.floats(2 * width);
    std::vector<int64_t> ids, types;
    for (int64_t i = 0; i < rows; ++i) {
      ids.push_back(random.below(11));
      types.push_back(random.below(2));
    }
    for (const bool typed : {false, true}) {
      Floats expected;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < width; ++i) {
          const float w = word[ids[r] * width + i], p = position[r % length * width + i];
          expected.push_back(typed ? (w + type[types[r] * width + i]) + p : w + p);
        }
      const End<int64_t> gi(ids), gt(types);
      const End<float> gw(word), gp(position), gy(type), y(rows * width);
      const EmbeddingSumArgs args{gi.data(), typed ? gt.data() : nullptr, gw.data(), gp.data(), typed ? gy.data() : nullptr,
                                  length, width, y.data()};
      on_every_isa(rows, [&](auto& t, int64_t i, int64_t j) { t.embedding_sum(args, i, j); },
                   [&] { return y.holds(expected); }, text("embedding sum", {width, typed}, random.seed));
    }
  }
}

TEST(layer_norm_equals_plain_loops) {
  for (const int64_t width : kWidths) {
    Random random{static_cast<unsigned>(width)};
    const int64_t rows = 5;
    const Floats x = random.floats(rows * width), gamma = random.floats(width), beta = random.floats(width);
    Floats expected;
    for (int64_t r = 0; r < rows; ++r) {
      const float mean = sum16(&x[r * width], width) / static_cast<float>(width);
      Floats d;
      for (int64_t i = 0; i < width; ++i) d.push_back(x[r * width + i] - mean);
      const float variance = dot16(d.data(), width) / static_cast<float>(width);
      const float rstd = 1.0f / std::sqrt(variance + 1e-5f);
      for (int64_t i = 0; i < width; ++i) expected.push_back(std::fma(d[i] * rstd, gamma[i], beta[i]));
    }
    const Floats inverse_scale = random.floats(width);
    std::vector<uint8_t> quantized;
    for (int64_t i = 0; i < rows * width; ++i)
      quantized.push_back(plain_quantize(expected[i], Quantizer{inverse_scale[i % width], kQuantizer.zero_point}));
    const End<float> gx(x), gg(gamma), gb(beta), inverse(inverse_scale), y(rows * width);
    const End<uint8_t> yq(rows * width);
    for (const int outputs : {1, 2, 3}) {
      const LayerNormArgs args{gx.data(), gg.data(), gb.data(), width, 1e-5f, outputs & 1 ? y.data() : nullptr,
                               outputs & 2 ? yq.data() : nullptr, inverse.data(), kQuantizer.zero_point};
      on_every_isa(rows, [&](auto& t, int64_t i, int64_t j) { t.layer_norm(args, i, j); },
                   [&] {
                     return (!(outputs & 1) || y.holds(expected)) &&
                            (!(outputs & 2) || yq.holds(quantized));
                   },
                   text("layer norm", {width, outputs}, random.seed));
    }
  }
}

namespace {

// The sum over the pixels of one channel, in the order of docs/arithmetic.md; `add` makes the next sum of the one before.
template <class Add>
float sum_of_pixels(const Floats& x, const Add& add) {
  float total = 0;
  for (size_t begin = 0; begin < x.size(); begin += 256) {
    float sum[4] = {};
    for (size_t p = begin; p < x.size() && p < begin + 256; ++p) sum[p % 4] = add(sum[p % 4], x[p]);
    total += (sum[0] + sum[2]) + (sum[1] + sum[3]);
  }
  return total;
}

struct GroupProblem {
  int64_t images, pixels, groups, group;
  bool shifted;

  int64_t channels() const { return groups * group; }
};

Floats plain_group_norm(const GroupProblem& g, const Floats& x, const Floats& shift, const Floats& gamma, const Floats& beta) {
  const int64_t channels = g.channels();
  Floats y(x.size());
  for (int64_t image = 0; image < g.images; ++image)
    for (int64_t first = 0; first < channels; first += g.group) {
      std::vector<Floats> of(g.group, Floats(g.pixels));
      for (int64_t c = 0; c < g.group; ++c)
        for (int64_t p = 0; p < g.pixels; ++p) {
          of[c][p] = x[(image * g.pixels + p) * channels + first + c];
          if (g.shifted) of[c][p] += shift[image * channels + first + c];
        }
      const float count = static_cast<float>(g.group * g.pixels);
      float sum = 0, squares = 0;
      for (const Floats& one : of) sum += sum_of_pixels(one, [](float s, float v) { return s + v; });
      for (Floats& one : of)
        for (float& v : one) v -= sum / count;
      for (const Floats& one : of) squares += sum_of_pixels(one, [](float s, float v) { return std::fma(v, v, s); });
      const float rstd = 1.0f / std::sqrt(squares / count + 1e-5f);
      for (int64_t c = 0; c < g.group; ++c)
        for (int64_t p = 0; p < g.pixels; ++p)
          y[(image * g.pixels + p) * channels + first + c] = std::fma(of[c][p] * rstd, gamma[first + c], beta[first + c]);
    }
  return y;
}

}  // namespace

TEST(group_norm_equals_plain_loops) {
  const GroupProblem problems[] = {{1, 1, 1, 1, false},  {2, 5, 3, 1, true},   {1, 7, 1, 33, false}, {2, 4, 5, 6, true},
                                   {1, 300, 2, 9, false}, {1, 515, 3, 16, true}, {3, 6, 4, 20, false}, {1, 256, 64, 1, true}};
  for (const GroupProblem& g : problems) {
    Random random{static_cast<unsigned>(g.pixels + g.channels())};
    const int64_t channels = g.channels(), count = g.images * g.pixels * channels;
    const Floats x = random.floats(count), shift = random.floats(g.images * channels), gamma = random.floats(channels),
                 beta = random.floats(channels);
    const Floats plain = plain_group_norm(g, x, shift, gamma, beta);
    for (const Activation kind : {Activation::none, Activation::silu})
      for (const int64_t groups : {int64_t{1}, (g.groups + 1) / 2, g.groups}) {
        Floats expected;
        for (const float v : plain) expected.push_back(test::plain_activation({kind}, v));
        const End<float> gx(x), gs(shift), gg(gamma), gb(beta), y(count);
        const End<uint8_t> yq(count);
        alignas(64) static float scratch[4096];
        GroupNormArgs args;
        args.x = gx.data(), args.shift = g.shifted ? gs.data() : nullptr, args.gamma = gg.data(), args.beta = gb.data();
        args.pixels = g.pixels, args.channels = channels, args.group = g.group;
        args.x_stride = args.y_stride = channels;
        args.part_channels = groups * g.group, args.parts = (g.groups + groups - 1) / groups;
        args.epsilon = 1e-5f, args.activation = {kind}, args.y = y.data(), args.scratch = scratch;
        const std::string what = text("group norm", {g.pixels, g.groups, g.group, groups}, random.seed);
        on_every_isa(g.images * args.parts, [&](auto& t, int64_t i, int64_t j) { t.group_norm(args, i, j); },
                     [&] { return y.holds(expected); }, what);
        args.stored = Stored::u8, args.quantizer = kQuantizer, args.y = yq.data();
        on_every_isa(g.images * args.parts, [&](auto& t, int64_t i, int64_t j) { t.group_norm(args, i, j); },
                     [&] { return yq.holds(plain_quantize(expected, kQuantizer)); }, what);
      }
  }
}

TEST(pooling_equals_plain_loops) {
  for (const int64_t width : kWidths) {
    Random random{static_cast<unsigned>(width)};
    const int64_t batch = 3, length = 6;
    const Floats x = random.floats(batch * length * width);
    auto mask = random.mask(batch * length);
    for (int64_t l = 0; l < length; ++l) mask[length + l] = 0;
    Floats pooled, normal;
    for (int64_t b = 0; b < batch; ++b) {
      Floats sum(width);
      float count = 0;
      for (int64_t l = 0; l < length; ++l) {
        if (mask[b * length + l] == 0) continue;
        count += 1;
        for (int64_t i = 0; i < width; ++i) sum[i] += x[(b * length + l) * width + i];
      }
      for (int64_t i = 0; i < width; ++i) pooled.push_back(sum[i] / max_of(count, 1e-9f));
      const float norm = max_of(std::sqrt(dot16(&x[b * width], width)), 0.5f);
      for (int64_t i = 0; i < width; ++i) normal.push_back(x[b * width + i] / norm);
    }
    const End<float> gx(x), y(batch * width);
    const End<int64_t> gm(mask);
    const MeanPoolArgs pool{gx.data(), gm.data(), length, width, y.data()};
    const int64_t units = batch * ((width + kPoolBlock - 1) / kPoolBlock);
    on_every_isa(units, [&](auto& t, int64_t i, int64_t j) { t.mean_pool(pool, i, j); }, [&] { return y.holds(pooled); },
                 text("mean pool", {width}, random.seed));
    const L2NormalizeArgs l2{gx.data(), width, 0.5f, y.data()};
    on_every_isa(batch, [&](auto& t, int64_t i, int64_t j) { t.l2_normalize(l2, i, j); }, [&] { return y.holds(normal); },
                 text("l2 normalize", {width}, random.seed));
  }
}

namespace {

struct AttentionProblem {
  int64_t batch, length, heads, size, parts;
  int mask;  // 0: none; 1: padding at the end; 2: holes; 3: one element keeps nothing
  bool packed, quantized;
  float spread = 2.0f, scale = 0.4f;
  RoundTrip score = {}, probability = {};
  int64_t past = 0, fresh = 0;   // keys; of the latter 0: as many as there are queries, -1: none
  int64_t sharing = 1;           // heads that share keys and values
  bool causal = false;
  int bias = 0;                  // 0: none; 1: one row for all; 2: of every batch element, head and query

  int64_t new_keys() const { return fresh < 0 ? 0 : fresh == 0 || packed ? length : fresh; }
  int64_t keys() const { return past + new_keys(); }
};

std::vector<int64_t> make_mask(const AttentionProblem& p, Random& random) {
  auto mask = random.mask(p.batch * p.keys());
  if (p.mask == 1)
    for (int64_t i = 0; i < p.batch * p.keys(); ++i) mask[i] = i % p.keys() <= p.keys() / 2;
  for (int64_t l = 0; p.mask == 3 && l < p.keys(); ++l) mask[l] = 0;
  return mask;
}

struct Head {
  const AttentionArgs& a;
  int64_t batch, head;
  std::vector<int64_t> keys = {};  // the kept ones

  Head(const AttentionArgs& args, int64_t b, int64_t h) : a(args), batch(b), head(h) {
    for (int64_t j = 0; j < a.keys(); ++j)
      if (!a.mask || a.mask[b * a.keys() + j]) keys.push_back(j);
  }
  int64_t group() const { return head / (a.heads / a.groups); }
  float query(int64_t i, int64_t d) const { return a.q[(batch * a.length + i) * a.q_stride + head * a.size + d]; }
  float row(const float* past, const float* fresh, int64_t j, int64_t d) const {
    if (j < a.past) return past[((batch * a.groups + group()) * a.past + j) * a.size + d];
    return fresh[(batch * a.fresh + j - a.past) * a.stride + group() * a.size + d];
  }
  float key(int64_t j, int64_t d) const { return row(a.past_k, a.k, j, d); }
  float value(int64_t j, int64_t d) const { return row(a.past_v, a.v, j, d); }
  bool sees(int64_t i, int64_t j) const { return !a.causal || j <= i + a.keys() - a.length; }
  bool sees_any(int64_t i) const { return !keys.empty() && sees(i, keys.front()); }
  float biased(int64_t i, int64_t j, float score, float scale) const {
    if (!a.bias.data) return score * scale;
    const auto& b = a.bias;
    return std::fma(score, scale, b.data[batch % b.batches * b.batch + head * b.head + i * b.query + j]);
  }
};

float plain_round_trip(float x, const RoundTrip& r) {
  return r ? static_cast<float>(plain_quantize(x, r.quantizer) - r.quantizer.zero_point) * r.scale : x;
}

// One output row in binary32.
void plain_float_row(const Head& h, int64_t i, float* y) {
  const auto& a = h.a;
  Floats e(a.keys());
  float m = -INFINITY;
  for (const int64_t j : h.keys) {
    if (!h.sees(i, j)) continue;
    float acc = 0;
    for (int64_t d = 0; d < a.size; ++d) acc = std::fma(h.query(i, d), h.key(j, d), acc);
    e[j] = h.biased(i, j, plain_round_trip(acc, a.score), a.scale);
    m = max_of(m, e[j]);
  }
  for (const int64_t j : h.keys)
    if (h.sees(i, j)) e[j] = plain_exp(e[j] - m);
  float inverse = 1.0f / sum16(e.data(), a.keys());
  if (a.probability) {
    for (float& v : e) v = plain_round_trip(v * inverse, a.probability);
    inverse = 1.0f;
  }
  for (int64_t d = 0; d < a.size; ++d) {
    float acc = 0;
    for (int64_t j = 0; j < a.keys(); ++j) acc = std::fma(e[j], h.value(j, d), acc);
    y[d] = acc * inverse;
  }
}

// Numbers with the unit that fits the largest of some sums of squares.
struct Fixed {
  float unit = 0, inverse = 0;
  bool fits = true;
  Fixed(const Floats& squares, float full) {
    float most = 0;
    for (const float s : squares) {
      fits = fits && s <= 0x1p80f;
      most = max_of(most, s);
    }
    const float norm = max_of(0x1p-60f, std::sqrt(most));
    unit = norm * (1.0f / full);
    inverse = full / norm;
  }
  int64_t of(float x) const { return static_cast<int64_t>(std::nearbyint(x * inverse)); }
};

template <class At>
Fixed fixed_row(const Head& h, const At& at) {
  float sum[4] = {};
  for (int64_t d = 0; d < h.a.size; ++d) sum[d % 4] = std::fma(at(d), at(d), sum[d % 4]);
  return {{(sum[0] + sum[2]) + (sum[1] + sum[3])}, 32760.0f};
}
Fixed fixed_query(const Head& h, int64_t i) {
  return fixed_row(h, [&](int64_t d) { return h.query(i, d); });
}
Fixed fixed_key(const Head& h, int64_t j) {
  return fixed_row(h, [&](int64_t d) { return h.key(j, d); });
}

Fixed fixed_column(const Head& h, int64_t d) {
  Floats squares;
  for (size_t first = 0; first < h.keys.size(); first += 32) {
    float sum[4] = {};
    for (size_t j = first; j < h.keys.size() && j < first + 32; ++j) {
      const float v = h.value(h.keys[j], d);
      sum[j % 4] = std::fma(v, v, sum[j % 4]);
    }
    squares.push_back((sum[0] + sum[2]) + (sum[1] + sum[3]));
  }
  return {squares, 11580.0f};
}

bool fits_fixed(const Head& h) {
  bool fits = !h.a.few() && !h.a.score && !h.a.probability && h.a.size <= 4096 && h.a.scale >= 0x1p-32f && h.a.scale <= 0x1p32f;
  for (int64_t i = 0; i < h.a.length; ++i) fits = fits && fixed_query(h, i).fits;
  for (const int64_t j : h.keys) fits = fits && fixed_key(h, j).fits;
  for (int64_t d = 0; d < h.a.size; ++d) fits = fits && fixed_column(h, d).fits;
  return fits;
}

int64_t plain_fixed_exp2(float t) {
  const float n = std::nearbyint(t), f = t - n;
  float p = kFixedExp2[kFixedExp2Degree];
  for (int i = kFixedExp2Degree - 1; i >= 0; --i) p = std::fma(p, f, kFixedExp2[i]);
  return static_cast<int64_t>(std::nearbyint(std::ldexp(p, static_cast<int>(max_of(n, -1000.0f)))));
}

// One output row in fixed point.
void plain_fixed_row(const Head& h, int64_t i, float* y) {
  const auto& a = h.a;
  const Fixed query = fixed_query(h, i);
  const float scale = query.unit * a.scale;
  Floats u(h.keys.size(), -INFINITY);
  float m = -INFINITY;
  for (size_t j = 0; j < h.keys.size() && h.sees(i, h.keys[j]); ++j) {
    const Fixed key = fixed_key(h, h.keys[j]);
    int64_t sum = 0;
    for (int64_t d = 0; d < a.size; ++d) sum += query.of(h.query(i, d)) * key.of(h.key(h.keys[j], d));
    u[j] = static_cast<float>(sum) * key.unit;
    if (a.bias.data) u[j] = h.biased(i, h.keys[j], u[j], scale);
    m = max_of(m, u[j]);
  }
  const float factor = a.bias.data ? kLog2e : scale * kLog2e;
  std::vector<int64_t> p;
  int64_t z = 0;
  for (const float v : u) z += p.emplace_back(plain_fixed_exp2(max_of((v - m) * factor, -200.0f)));
  for (int64_t d = 0; d < a.size; ++d) {
    const Fixed column = fixed_column(h, d);
    float total = 0;
    for (size_t first = 0; first < p.size(); first += 32) {
      int64_t sum = 0;
      for (size_t j = first; j < p.size() && j < first + 32; ++j) sum += p[j] * column.of(h.value(h.keys[j], d));
      total += static_cast<float>(sum);
    }
    y[d] = total * column.unit * (1.0f / static_cast<float>(z));
  }
}

Floats plain_attention(const AttentionArgs& a, int64_t batch) {
  Floats y(batch * a.length * a.heads * a.size);
  for (int64_t unit = 0; unit < batch * a.heads; ++unit) {
    const Head h(a, unit / a.heads, unit % a.heads);
    const auto row = fits_fixed(h) ? plain_fixed_row : plain_float_row;
    for (int64_t i = 0; i < a.length; ++i)
      if (h.sees_any(i)) row(h, i, &y[((h.batch * a.length + i) * a.heads + h.head) * a.size]);
  }
  return y;
}

// All keys, or all values, of a batch.
Floats plain_present(const AttentionArgs& a, int64_t batch, bool values) {
  Floats all;
  for (int64_t unit = 0; unit < batch * a.groups; ++unit) {
    const Head h(a, unit / a.groups, unit % a.groups * (a.heads / a.groups));
    for (int64_t j = 0; j < a.keys(); ++j)
      for (int64_t d = 0; d < a.size; ++d) all.push_back(values ? h.value(j, d) : h.key(j, d));
  }
  return all;
}

void check_attention(const AttentionProblem& p, unsigned seed) {
  Random random{seed};
  const int64_t groups = p.heads, heads = groups * p.sharing, width = heads * p.size, rows = p.batch * p.length;
  const int64_t kv_width = groups * p.size, cached = p.batch * groups * p.past * p.size, all = p.batch * kv_width * p.keys();
  const auto floats = [&](int64_t n) { return random.floats(n, p.spread); };
  const int64_t q_width = width + (p.packed ? 2 * kv_width : 0), fresh = p.batch * p.new_keys() * kv_width;
  const End<float> q(floats(rows * q_width)), k(floats(fresh)), v(floats(fresh)), past_k(floats(cached)), past_v(floats(cached));
  const int64_t each = p.bias == 2 ? p.batch * heads * p.length : 1;
  const End<float> bias(random.floats(each * p.keys(), 1.0f));
  const End<int64_t> mask(make_mask(p, random));
  const End<float> y(rows * width), present_k(all), present_v(all);
  const End<uint8_t> yq(rows * width);
  AttentionArgs args{};
  args.q = q.data();
  args.k = p.packed ? q.data() + width : k.data();
  args.v = p.packed ? q.data() + width + kv_width : v.data();
  args.q_stride = q_width;
  args.stride = p.packed ? q_width : kv_width;
  args.past_k = past_k.data();
  args.past_v = past_v.data();
  args.present_k = present_k.data();
  args.present_v = present_v.data();
  args.mask = p.mask ? mask.data() : nullptr;
  if (p.bias == 1) args.bias = {bias.data(), 1, 0, 0, 0};
  if (p.bias == 2) args.bias = {bias.data(), p.batch, heads * p.length * p.keys(), p.length * p.keys(), p.keys()};
  args.causal = p.causal;
  args.length = p.length;
  args.past = p.past;
  args.fresh = p.new_keys();
  args.heads = heads;
  args.groups = groups;
  args.size = p.size;
  args.parts = p.parts;
  args.scale = p.scale;
  args.quantized = p.quantized;
  args.quantizer = kQuantizer;
  args.score = p.score;
  args.probability = p.probability;
  args.y = p.quantized ? static_cast<void*>(yq.data()) : y.data();
  const End<float> scratch(attention_scratch(p.length, p.keys(), p.size));
  args.scratch = scratch.data();
  const Floats expected = plain_attention(args, p.batch);
  const Floats keys = plain_present(args, p.batch, false), values = plain_present(args, p.batch, true);
  on_every_isa(p.batch * heads * p.parts, [&](auto& t, int64_t i, int64_t j) { t.attention(args, i, j); },
               [&] {
                 return (p.quantized ? yq.holds(plain_quantize(expected, kQuantizer)) : y.holds(expected)) &&
                        present_k.holds(keys) && present_v.holds(values);
               },
               text("attention", {p.batch, p.length, p.past, p.fresh, p.heads, p.sharing, p.size, p.parts, p.mask, p.packed,
                                  p.quantized, p.causal, p.bias}, seed));
}

}  // namespace

TEST(attention_equals_plain_loops) {
  check_attention({1, 1, 1, 1, 1, 0, false, false}, 1);
  check_attention({2, 16, 2, 32, 1, 0, true, false}, 2);
  check_attention({1, 33, 3, 20, 2, 2, true, true}, 3);
  check_attention({2, 47, 2, 16, 3, 1, false, false}, 4);
  check_attention({3, 13, 1, 40, 1, 3, false, true}, 5);
  check_attention({1, 100, 2, 64, 4, 2, true, false}, 6);
  check_attention({1, 65, 1, 128, 2, 1, false, false}, 7);
  check_attention({1, 130, 2, 33, 1, 2, true, true}, 8);
  check_attention({1, 7, 1, 129, 1, 0, true, false}, 9);
  check_attention({1, 520, 1, 8, 1, 2, false, false}, 10);
}

TEST(attention_beyond_fixed_point_equals_plain_loops) {
  check_attention({1, 20, 2, 32, 1, 2, false, false, 1e15f, 1e-25f}, 11);
  check_attention({2, 40, 2, 24, 2, 1, true, false, 2.0f, -0.3f}, 12);
  check_attention({1, 17, 1, 16, 1, 0, true, false, 1.0f, 1e-12f}, 13);
  check_attention({1, 3, 1, 4100, 1, 0, false, false, 0.1f}, 14);
}

TEST(attention_with_roundings_inside_equals_plain_loops) {
  const RoundTrip score{{1.0f / 0.3f, 128}, 0.3f}, probability{{255.0f, 0}, 1.0f / 255.0f}, coarse{{20.0f, 17}, 0.05f};
  check_attention({2, 33, 2, 20, 2, 2, false, false, 2.0f, 0.4f, score, {}}, 19);
  check_attention({1, 47, 2, 16, 1, 1, true, true, 2.0f, 0.4f, {}, probability}, 20);
  check_attention({2, 13, 1, 40, 1, 3, false, false, 2.0f, 0.4f, score, coarse}, 21);
}

TEST(attention_of_extreme_numbers_in_fixed_point_equals_plain_loops) {
  check_attention({1, 33, 1, 32, 1, 2, false, false, 0.0f}, 15);
  check_attention({1, 33, 1, 32, 1, 2, false, false, 1e-30f}, 16);
  check_attention({1, 33, 1, 5, 1, 1, false, false, 1e11f, 1e9f}, 17);
  check_attention({1, 70, 1, 31, 1, 2, false, false, 100.0f}, 18);
}

TEST(attention_equals_plain_loops_on_random_problems) {
  for (unsigned seed = 100; seed < 130; ++seed) {
    Random r{seed};
    check_attention({1 + r.below(3), 1 + r.below(50), 1 + r.below(3), 1 + r.below(50), 1 + r.below(3), static_cast<int>(r.below(4)),
                     r.below(2) == 0, r.below(2) == 0},
                    seed);
  }
}

TEST(attention_with_a_past_equals_plain_loops) {
  for (unsigned seed = 200; seed < 260; ++seed) {
    Random r{seed};
    const auto one_of = [&](std::initializer_list<int64_t> from) { return from.begin()[r.below(static_cast<int64_t>(from.size()))]; };
    AttentionProblem p{1 + r.below(2), one_of({1, 2, 3, 4, 5, 15, 16, 17, 33, 40}), 1 + r.below(2), one_of({1, 5, 16, 20, 64}),
                       1 + r.below(2), static_cast<int>(r.below(4)), r.below(2) == 0, r.below(2) == 0};
    p.past = one_of({0, 1, 7, 16, 33});
    p.fresh = one_of({0, 1, 8, 31, 47, p.past > 0 && !p.packed ? -1 : 3});
    p.sharing = 1 + r.below(2);
    p.causal = r.below(2) == 0;
    p.bias = static_cast<int>(r.below(3));
    check_attention(p, seed);
    p.score = {{1.0f / 0.3f, 128}, 0.3f};
    check_attention(p, seed + 1000);
  }
}

// The softmax is only as good as exp: against the C library over the whole range.
TEST(exp_and_gelu_stay_within_their_stated_errors) {
  for (int i = 0; i <= 20000; ++i) {
    const float v = -87.0f + static_cast<float>(i) * (175.0f / 20000.0f);
    const double exact = std::exp(static_cast<double>(v));
    CHECK_SAY(std::fabs(plain_exp(v) - exact) < 2e-7 * exact, "exp " + std::to_string(v));
    const double g = -8.0 + 16.0 * i / 20000.0;
    const float at = static_cast<float>(g);
    const double gelu = at * 0.5 * std::erfc(-static_cast<double>(at) / std::sqrt(2.0));
    CHECK_SAY(std::fabs(plain_gelu(at) - gelu) < 7e-7, "gelu " + std::to_string(at));
  }
}

}  // namespace openwork
