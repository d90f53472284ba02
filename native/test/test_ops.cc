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
#include "test/guarded.h"
#include "test/harness.h"
#include "test/plain_activation.h"
#include "test/tables.h"

namespace openwork {
namespace {

using Floats = std::vector<float>;

float min_of(float a, float b) { return a < b ? a : b; }
float max_of(float a, float b) { return a > b ? a : b; }

float tree(float (&acc)[16]) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) acc[i] += acc[i + half];
  return acc[0];
}
float sum16(const float* x, int64_t n) {
  float acc[16] = {};
  for (int64_t i = 0; i < n; ++i) acc[i % 16] += x[i];
  return tree(acc);
}
float dot16(const float* x, int64_t n) {
  float acc[16] = {};
  for (int64_t i = 0; i < n; ++i) acc[i % 16] = std::fma(x[i], x[i], acc[i % 16]);
  return tree(acc);
}
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
uint8_t plain_quantize(float x, const Quantizer& q) {
  const float v = std::nearbyint(x * q.inverse_scale);
  const float low = static_cast<float>(-q.zero_point), high = static_cast<float>(255 - q.zero_point);
  return static_cast<uint8_t>(static_cast<int>(min_of(max_of(v, low), high)) + q.zero_point);
}
std::vector<uint8_t> plain_quantize(const Floats& x, const Quantizer& q) {
  std::vector<uint8_t> y;
  for (const float v : x) y.push_back(plain_quantize(v, q));
  return y;
}

struct Random {
  unsigned seed;
  std::mt19937 engine{seed};

  int64_t below(int64_t n) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(n)); }
  Floats floats(int64_t n, float spread = 2.0f) {
    std::normal_distribution<float> normal(0.0f, spread);
    Floats x(n);
    for (auto& v : x) v = normal(engine);
    return x;
  }
  std::vector<int64_t> mask(int64_t n) {
    std::vector<int64_t> m(n);
    for (auto& v : m) v = below(3) ? 1 + below(5) : 0;
    return m;
  }
};

// Memory behind which neither reads nor writes go unseen.
template <class T>
struct End {
  Guarded memory;
  explicit End(const std::vector<T>& v) : memory(v.data(), v.size() * sizeof(T), 0) {}
  explicit End(int64_t count) : memory(nullptr, count * sizeof(T), 0) {}
  T* data() const { return reinterpret_cast<T*>(memory.data()); }
  bool holds(const std::vector<T>& v) const { return std::memcmp(data(), v.data(), v.size() * sizeof(T)) == 0; }
};

constexpr Quantizer kQuantizer{31.0f, 119};

// Runs on every instruction set, in one range and cut in two.
void on_every_isa(int64_t units, const std::function<void(const KernelTable&, int64_t, int64_t)>& run,
                  const std::function<bool()>& same, const std::string& what) {
  for (const KernelTable* table : test::own_tables()) {
    run(*table, 0, units);
    CHECK_SAY(same(), what + " on " + table->isa);
    run(*table, units / 2, units);
    run(*table, 0, units / 2);
    CHECK_SAY(same(), what + " in two parts on " + table->isa);
  }
}

std::string text(const char* what, std::initializer_list<int64_t> sizes, unsigned seed) {
  std::string s = what;
  for (const int64_t n : sizes) s.append(" ").append(std::to_string(n));
  return s + " seed " + std::to_string(seed);
}

constexpr int64_t kWidths[] = {1, 15, 16, 17, 32, 63, 64, 97, 384};

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
};

std::vector<int64_t> make_mask(const AttentionProblem& p, Random& random) {
  auto mask = random.mask(p.batch * p.length);
  if (p.mask == 1)
    for (int64_t i = 0; i < p.batch * p.length; ++i) mask[i] = i % p.length <= p.length / 2;
  for (int64_t l = 0; p.mask == 3 && l < p.length; ++l) mask[l] = 0;
  return mask;
}

struct Head {
  const AttentionArgs& a;
  int64_t batch, head;
  std::vector<int64_t> keys = {};  // the kept ones

  Head(const AttentionArgs& args, int64_t b, int64_t h) : a(args), batch(b), head(h) {
    for (int64_t j = 0; j < a.length; ++j)
      if (!a.mask || a.mask[b * a.length + j]) keys.push_back(j);
  }
  float at(const float* x, int64_t l, int64_t d) const { return x[(batch * a.length + l) * a.stride + head * a.size + d]; }
};

float plain_round_trip(float x, const RoundTrip& r) {
  return r ? static_cast<float>(plain_quantize(x, r.quantizer) - r.quantizer.zero_point) * r.scale : x;
}

// One output row in binary32.
void plain_float_row(const Head& h, int64_t i, float* y) {
  const auto& a = h.a;
  Floats e(a.length);
  float m = -INFINITY;
  for (const int64_t j : h.keys) {
    float acc = 0;
    for (int64_t d = 0; d < a.size; ++d) acc = std::fma(h.at(a.q, i, d), h.at(a.k, j, d), acc);
    e[j] = plain_round_trip(acc, a.score) * a.scale;
    m = max_of(m, e[j]);
  }
  for (const int64_t j : h.keys) e[j] = plain_exp(e[j] - m);
  float inverse = 1.0f / sum16(e.data(), a.length);
  if (a.probability) {
    for (float& v : e) v = plain_round_trip(v * inverse, a.probability);
    inverse = 1.0f;
  }
  for (int64_t d = 0; d < a.size; ++d) {
    float acc = 0;
    for (int64_t j = 0; j < a.length; ++j) acc = std::fma(e[j], h.at(a.v, j, d), acc);
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

Fixed fixed_row(const Head& h, const float* x, int64_t l) {
  float sum[4] = {};
  for (int64_t d = 0; d < h.a.size; ++d) sum[d % 4] = std::fma(h.at(x, l, d), h.at(x, l, d), sum[d % 4]);
  return {{(sum[0] + sum[2]) + (sum[1] + sum[3])}, 32760.0f};
}

Fixed fixed_column(const Head& h, const float* x, int64_t d) {
  Floats squares;
  for (size_t first = 0; first < h.keys.size(); first += 32) {
    float sum[4] = {};
    for (size_t j = first; j < h.keys.size() && j < first + 32; ++j) {
      const float v = h.at(x, h.keys[j], d);
      sum[j % 4] = std::fma(v, v, sum[j % 4]);
    }
    squares.push_back((sum[0] + sum[2]) + (sum[1] + sum[3]));
  }
  return {squares, 11580.0f};
}

bool fits_fixed(const Head& h) {
  bool fits = !h.a.score && !h.a.probability && h.a.size <= 4096 && h.a.scale >= 0x1p-32f && h.a.scale <= 0x1p32f;
  for (int64_t i = 0; i < h.a.length; ++i) fits = fits && fixed_row(h, h.a.q, i).fits;
  for (const int64_t j : h.keys) fits = fits && fixed_row(h, h.a.k, j).fits;
  for (int64_t d = 0; d < h.a.size; ++d) fits = fits && fixed_column(h, h.a.v, d).fits;
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
  const Fixed query = fixed_row(h, a.q, i);
  Floats u;
  for (const int64_t j : h.keys) {
    const Fixed key = fixed_row(h, a.k, j);
    int64_t sum = 0;
    for (int64_t d = 0; d < a.size; ++d) sum += query.of(h.at(a.q, i, d)) * key.of(h.at(a.k, j, d));
    u.push_back(static_cast<float>(sum) * key.unit);
  }
  float m = -INFINITY;
  for (const float v : u) m = max_of(m, v);
  const float factor = query.unit * a.scale * kLog2e;
  std::vector<int64_t> p;
  int64_t z = 0;
  for (const float v : u) z += p.emplace_back(plain_fixed_exp2((v - m) * factor));
  for (int64_t d = 0; d < a.size; ++d) {
    const Fixed column = fixed_column(h, a.v, d);
    float total = 0;
    for (size_t first = 0; first < p.size(); first += 32) {
      int64_t sum = 0;
      for (size_t j = first; j < p.size() && j < first + 32; ++j) sum += p[j] * column.of(h.at(a.v, h.keys[j], d));
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
    for (int64_t i = 0; i < a.length && !h.keys.empty(); ++i) row(h, i, &y[((h.batch * a.length + i) * a.heads + h.head) * a.size]);
  }
  return y;
}

void check_attention(const AttentionProblem& p, unsigned seed) {
  Random random{seed};
  const int64_t width = p.heads * p.size, rows = p.batch * p.length;
  const auto floats = [&](int64_t n) { return random.floats(n, p.spread); };
  const End<float> q(floats(rows * width * (p.packed ? 3 : 1))), k(floats(rows * width)), v(floats(rows * width));
  const End<int64_t> mask(make_mask(p, random));
  const End<float> y(rows * width);
  const End<uint8_t> yq(rows * width);
  AttentionArgs args{};
  args.q = q.data();
  args.k = p.packed ? q.data() + width : k.data();
  args.v = p.packed ? q.data() + 2 * width : v.data();
  args.stride = p.packed ? 3 * width : width;
  args.mask = p.mask ? mask.data() : nullptr;
  args.length = p.length;
  args.heads = p.heads;
  args.size = p.size;
  args.parts = p.parts;
  args.scale = p.scale;
  args.quantized = p.quantized;
  args.quantizer = kQuantizer;
  args.score = p.score;
  args.probability = p.probability;
  args.y = p.quantized ? static_cast<void*>(yq.data()) : y.data();
  const End<float> scratch(attention_scratch(p.length, p.size));
  args.scratch = scratch.data();
  const Floats expected = plain_attention(args, p.batch);
  on_every_isa(p.batch * p.heads * p.parts, [&](auto& t, int64_t i, int64_t j) { t.attention(args, i, j); },
               [&] { return p.quantized ? yq.holds(plain_quantize(expected, kQuantizer)) : y.holds(expected); },
               text("attention", {p.batch, p.length, p.heads, p.size, p.parts, p.mask, p.packed, p.quantized}, seed));
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
