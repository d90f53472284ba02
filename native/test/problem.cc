#include "test/guarded.h"
#include "test/harness.h"
#include "test/plain_epilogue.h"
#include "test/problem.h"
#include "test/tables.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>


namespace openwork::test {
namespace {

bool kept(const Zeros& z, const std::vector<bool>& block_kept, int64_t blocks_wide, int64_t n, int64_t i) {
  return z.group || z.fraction == 0.0 || block_kept[static_cast<size_t>(n / z.rows * blocks_wide + i / z.columns)];
}

// For each tap and group of M input channels which are kept, alike for `rows` neighbouring channels.
std::vector<bool> draw_groups(const Zeros& z, const WeightShape& s, std::mt19937& rng) {
  std::vector<bool> mask(static_cast<size_t>(s.n * s.k()), false);
  for (int64_t c = 0; c < s.n; ++c)
    for (int64_t t = 0; t < s.taps(); ++t)
      for (int64_t g = 0; g < s.channels; g += z.group) {
        int left = z.kept;
        for (int64_t i = g; i < g + z.group; ++i) {
          const bool keep = static_cast<int>(rng() % static_cast<unsigned>(g + z.group - i)) < left;
          left -= keep;
          if (i >= s.channels) continue;
          const auto at = static_cast<size_t>(c * s.k() + t * s.channels + i);
          mask[at] = c % z.rows ? mask[at - static_cast<size_t>(s.k())] : keep;
        }
      }
  return mask;
}

std::vector<bool> draw_blocks(const Zeros& z, const WeightShape& s, std::mt19937& rng) {
  const int64_t high = (s.n + z.rows - 1) / z.rows, wide = (s.k() + z.columns - 1) / z.columns;
  std::vector<bool> block(static_cast<size_t>(high * wide));
  for (size_t b = 0; b < block.size(); ++b) block[b] = rng() % 10000 >= z.fraction * 10000;
  std::vector<bool> mask(static_cast<size_t>(s.n * s.k()));
  for (int64_t c = 0; c < s.n; ++c)
    for (int64_t i = 0; i < s.k(); ++i) mask[static_cast<size_t>(c * s.k() + i)] = kept(z, block, wide, c, i);
  return mask;
}

void put(std::vector<uint8_t>& bytes, Type type, double value) {
  if (type == Type::i8) {
    bytes.push_back(static_cast<uint8_t>(static_cast<int>(value)));
    return;
  }
  const auto number = static_cast<float>(value);
  uint8_t raw[4];
  std::memcpy(raw, &number, 4);
  bytes.insert(bytes.end(), raw + (type == Type::bf16 ? 2 : 0), raw + 4);
}

double random_number(const Problem& p, std::mt19937& rng, bool weight) {
  if (p.type != Type::i8) return std::uniform_real_distribution<float>(-1.0f, 1.0f)(rng);
  if (weight) return p.extreme ? (rng() % 2 ? 127 : -127) : static_cast<int>(rng() % 255) - 127;
  return p.extreme ? (rng() % 2 ? 255 : 0) : static_cast<int>(rng() % 256);
}

// Of an output channel: each has its own, as a y_multiplier gives them.
float inverse_scale(int64_t channel) { return 37.5f + static_cast<float>(channel % 7); }
constexpr int kOutputZeroPoint = 119;

EpilogueSpec epilogue_of(const Problem& p, const Data& d) {
  EpilogueSpec spec;
  spec.scale.assign(d.scale.begin(), d.scale.end());
  spec.bias.assign(d.bias.begin(), d.bias.end());
  spec.activation = p.activation;
  if (p.residual) spec.residual = Stored::f32;
  spec.output = p.quantized ? Stored::u8 : Stored::f32;
  for (int64_t c = 0; c < p.shape.n; ++c) spec.inverse_scale.push_back(inverse_scale(c));
  spec.y_zero_point = kOutputZeroPoint;
  return spec;
}

// Calls f(row, channel, x, w) for every product, taps and channels in increasing order.
template <class F>
void each_product(const Problem& p, const Data& d, const F& f) {
  const WeightShape& s = p.shape;
  const int64_t per_group = s.n / s.groups;
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t c = 0; c < s.n; ++c)
      for (int64_t t = 0; t < s.taps(); ++t) {
        const int64_t run = s.merged ? t / s.kernel_w : t, within = s.merged ? t % s.kernel_w : 0;
        const int64_t pixel = d.pixel[static_cast<size_t>(run * p.rows + r)] + within;
        for (int64_t i = 0; i < s.channels; ++i) {
          const double w = element(d.weight, p.type, c * s.k() + t * s.channels + i, true);
          f(r * s.n + c, element(d.x, p.type, pixel * s.pixel() + c / per_group * s.channels + i, false), w);
        }
      }
}

}  // namespace

double element(const std::vector<uint8_t>& bytes, Type type, int64_t at, bool is_signed) {
  const auto i = static_cast<size_t>(at);
  if (type == Type::i8) return is_signed ? static_cast<int8_t>(bytes[i]) : bytes[i];
  const size_t width = element_bytes(type);
  uint8_t raw[4] = {0, 0, 0, 0};
  std::memcpy(raw + 4 - width, &bytes[i * width], width);
  float v;
  std::memcpy(&v, raw, 4);
  return v;
}

Data make_data(const Problem& p) {
  std::mt19937 rng(p.seed);
  std::uniform_real_distribution<float> real(-1.0f, 1.0f);
  const WeightShape& s = p.shape;
  Data d;
  d.pixels = s.taps() == 1 ? p.rows : p.rows + s.kernel_w + 3;
  for (int64_t i = 0; i < d.pixels * s.pixel(); ++i) put(d.x, p.type, random_number(p, rng, false));
  const int64_t last = d.pixels - (s.merged ? s.kernel_w - 1 : 0);
  for (int64_t run = 0; run < s.runs(); ++run)
    for (int64_t r = 0; r < p.rows; ++r)
      d.pixel.push_back(s.taps() == 1 ? r : static_cast<int64_t>(rng() % static_cast<unsigned>(last)));
  const std::vector<bool> mask = p.zeros.group ? draw_groups(p.zeros, s, rng) : draw_blocks(p.zeros, s, rng);
  for (const bool keep : mask) put(d.weight, p.type, keep ? random_number(p, rng, true) : 0);
  for (int64_t c = 0; c < s.n; ++c) {
    d.scale.push_back(p.type == Type::i8 ? p.scale * (1.5f + real(rng)) : 1.0f);
    d.bias.push_back(real(rng));
  }
  if (p.residual)
    for (int64_t i = 0; i < p.rows * s.n; ++i) d.residual.push_back(real(rng));
  return d;
}

std::vector<double> plain_sums(const Problem& p, const Data& d) {
  std::vector<double> sums(static_cast<size_t>(p.rows * p.shape.n), 0.0);
  each_product(p, d, [&](int64_t at, double x, double w) {
    double& sum = sums[static_cast<size_t>(at)];
    if (p.type == Type::f32)
      sum = std::fma(static_cast<float>(x), static_cast<float>(w), static_cast<float>(sum));
    else
      sum += (p.type == Type::i8 ? x - p.zero_point : x) * w;
  });
  return sums;
}

std::vector<double> plain_magnitudes(const Problem& p, const Data& d) {
  std::vector<double> sums(static_cast<size_t>(p.rows * p.shape.n), 0.0);
  each_product(p, d, [&](int64_t at, double x, double w) { sums[static_cast<size_t>(at)] += std::fabs(x * w); });
  return sums;
}

std::vector<float> plain_outputs(const Problem& p, const Data& d, const std::vector<double>& sums) {
  const EpilogueSpec spec = epilogue_of(p, d);
  const PlainEpilogue plain(spec);
  std::vector<float> y;
  for (size_t i = 0; i < sums.size(); ++i)
    y.push_back(plain(static_cast<float>(sums[i]), p.residual ? d.residual[i] : 0.0f, static_cast<int64_t>(i) % p.shape.n));
  return y;
}

bool close(const std::vector<float>& found, const std::vector<float>& expected, const std::vector<double>& magnitudes, int64_t k) {
  for (size_t i = 0; i < found.size(); ++i) {
    const double bound = static_cast<double>(k + 2) * 0x1.01p-24 * (magnitudes[i] + 1.0);
    if (!(std::fabs(static_cast<double>(found[i]) - expected[i]) <= bound)) return false;
  }
  return found.size() == expected.size();
}

std::string describe(const Problem& p) {
  const WeightShape& s = p.shape;
  return std::string(type_name(p.type)) + " rows " + std::to_string(p.rows) + " weight [" + std::to_string(s.n) + ", " +
         std::to_string(s.kernel_h) + ", " + std::to_string(s.kernel_w) + ", " + std::to_string(s.channels) + "] groups " +
         std::to_string(s.groups) + (s.merged ? " merged" : "") + " zeros " + std::to_string(p.zeros.kept) + ":" +
         std::to_string(p.zeros.group) + " " + std::to_string(p.zeros.rows) + "x" + std::to_string(p.zeros.columns) + ":" +
         std::to_string(p.zeros.fraction) + " zero point " + std::to_string(p.zero_point) + " seed " + std::to_string(p.seed);
}

std::string describe(const Problem& p, const PackedWeights& w) {
  return std::string(w.table().isa) + " " + form_info(w.form()).name + (w.span() > 1 ? " ordered " : " ") + describe(p);
}

namespace {

struct Cut {
  int64_t block_rows, block_spans;
};

std::vector<float> run_cut(const Problem& p, const Data& d, const PackedWeights& w, const Cut& cut, bool in_place) {
  // What lies behind the last run is no number of any type.
  std::vector<uint8_t> padded = d.x;
  padded.resize(padded.size() + read_ahead(element_bytes(p.type)), 0xff);
  const Guarded x(padded.data(), padded.size(), 0);
  const auto count = static_cast<size_t>(p.rows * p.shape.n);
  const Guarded y(nullptr, count * (p.quantized ? 1 : sizeof(float)), 0);
  const Guarded residual(d.residual.data(), d.residual.size() * sizeof(float), 0);
  const auto channels = static_cast<size_t>(w.channels());
  std::vector<int32_t> start(channels);
  for (size_t c = 0; c < channels; ++c)
    start[c] = (w.table().activation_offset - p.zero_point) * w.column_sums()[static_cast<size_t>(w.natural(static_cast<int64_t>(c)))];
  const PreparedEpilogue epilogue(epilogue_of(p, d), w.channels());
  std::vector<const uint8_t*> pointers;
  for (const int64_t pixel : d.pixel) pointers.push_back(x.data() + pixel * p.shape.pixel() * element_bytes(p.type));
  GemmArgs a;
  a.x_stride = p.rows;
  a.weights = w.view();
  a.start = start.data();
  a.n = p.shape.n;
  a.epilogue = epilogue.view();
  if (p.residual) a.residual = residual.data();
  a.residual_stride = a.y_stride = p.shape.n;
  a.y = in_place ? residual.data() : y.data();
  const Guarded scratch(nullptr, static_cast<size_t>(w.scratch_bytes()), 0);
  a.scratch = scratch.data();
  const int64_t block_rows = cut.block_rows, block_groups = cut.block_spans * w.span();
  for (int64_t r = 0; r < p.rows; r += block_rows)
    for (int64_t g = 0; g < w.groups(); g += block_groups) {
      a.x = pointers.data() + r;
      w.kernel()(a, {r, std::min(r + block_rows, p.rows), g, std::min(g + block_groups, w.groups())});
    }
  std::vector<float> out(count);
  const auto* made = static_cast<const uint8_t*>(a.y);
  for (size_t i = 0; i < count; ++i) out[i] = p.quantized ? made[i] : reinterpret_cast<const float*>(made)[i];
  return out;
}

}  // namespace

std::vector<float> run_kernel(const Problem& p, const Data& d, const PackedWeights& w, int64_t block_rows, int64_t block_spans) {
  const auto y = run_cut(p, d, w, {block_rows, block_spans}, false);
  if (p.residual && !p.quantized) {
    const auto in_place = run_cut(p, d, w, {block_rows, block_spans}, true);
    CHECK_SAY(std::memcmp(in_place.data(), y.data(), y.size() * sizeof(float)) == 0, describe(p, w) + " in place");
  }
  return y;
}

std::vector<std::shared_ptr<const PackedWeights>> pack_all(const Problem& p, const Data& d, const KernelTable& table) {
  std::vector<std::shared_ptr<const PackedWeights>> packed;
  for (int f = 0; f < kForms; ++f) {
    const auto form = static_cast<Form>(f);
    if (!is_own(table, form) || !refusal(p.shape, p.type, form, table).empty()) continue;
    packed.push_back(PackedWeights::pack(p.shape, p.type, d.weight.data(), form, table));
  }
  return packed;
}

}  // namespace openwork::test
