// INT8 products of every instruction set of this machine against plain loops written from docs/arithmetic.md: the same bits.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/packing.h"
#include "test/guarded.h"
#include "test/harness.h"

namespace openwork {
namespace {

struct Problem {
  int64_t rows, k, n;
  int kept = 0, group = 0;  // 0: dense
  int zero_point = 0;
  Activation activation = Activation::none;
  bool quantized = false, residual = false;
  unsigned seed = 0;
  bool extreme = false;  // activations 0 or 255, weights -127 or 127
  float scale = 1e-4f;
};

struct Data {
  std::vector<uint8_t> x;
  std::vector<int8_t> weight;  // dense [n, k]
  std::vector<int8_t> values;
  std::vector<uint8_t> indices;
  std::vector<float> scale, bias, residual;
};

int bits_of(int group) {
  int bits = 0;
  while ((1 << bits) < group) ++bits;
  return bits;
}

int8_t random_weight(std::mt19937& rng, bool extreme) {
  if (extreme) return rng() % 2 ? 127 : -127;
  return static_cast<int8_t>(static_cast<int>(rng() % 255) - 127);
}

// Draws the kept positions of each group, in increasing order, and writes both the dense and the compressed form.
void fill_sparse(const Problem& p, std::mt19937& rng, Data& d) {
  const int64_t groups = (p.k + p.group - 1) / p.group, row_bytes = index_bytes(p.k, p.kept, p.group);
  const int bits = bits_of(p.group);
  d.indices.assign(static_cast<size_t>(p.n * row_bytes), 0);
  for (int64_t c = 0; c < p.n; ++c) {
    int64_t field = 0;
    for (int64_t g = 0; g < groups; ++g) {
      int left = p.kept;
      for (int position = 0; position < p.group; ++position) {
        if (static_cast<int>(rng() % static_cast<unsigned>(p.group - position)) >= left) continue;
        --left;
        const int64_t i = g * p.group + position;
        const int8_t value = i < p.k ? random_weight(rng, p.extreme) : int8_t{0};
        if (i < p.k) d.weight[static_cast<size_t>(c * p.k + i)] = value;
        d.values.push_back(value);
        for (int b = 0; b < bits; ++b, ++field)
          if (position >> b & 1) d.indices[static_cast<size_t>(c * row_bytes + field / 8)] |= static_cast<uint8_t>(1 << (field % 8));
      }
    }
  }
}

Data make_data(const Problem& p) {
  std::mt19937 rng(p.seed);
  std::uniform_real_distribution<float> real(-1.0f, 1.0f);
  Data d;
  d.x.resize(static_cast<size_t>(p.rows * p.k));
  for (auto& v : d.x) v = p.extreme ? (rng() % 2 ? 255 : 0) : static_cast<uint8_t>(rng());
  d.weight.assign(static_cast<size_t>(p.n * p.k), 0);
  if (p.group)
    fill_sparse(p, rng, d);
  else
    for (auto& w : d.weight) w = random_weight(rng, p.extreme);
  for (int64_t c = 0; c < p.n; ++c) {
    d.scale.push_back(p.scale * (1.5f + real(rng)));
    d.bias.push_back(real(rng));
  }
  if (p.residual)
    for (int64_t i = 0; i < p.rows * p.n; ++i) d.residual.push_back(real(rng));
  return d;
}

// Of an output channel: each has its own, as a y_multiplier gives them.
float inverse_scale(int64_t channel) { return 37.5f + static_cast<float>(channel % 7); }
constexpr int kOutputZeroPoint = 119;

float plain_activation(Activation a, float v) {
  if (a == Activation::relu) return v > 0.0f ? v : 0.0f;
  if (a == Activation::none) return v;
  const float at = std::fmin(std::fabs(v), 5.5f);
  const int piece = static_cast<int>(std::nearbyint(2.75 * at));
  float p = kGelu[kGeluDegree][piece];
  for (int i = kGeluDegree - 1; i >= 0; --i) p = std::fma(p, at, kGelu[i][piece]);
  return (0.0f > v ? 0.0f : v) - p;
}

uint8_t plain_quantize(float v, int64_t channel) {
  float t = std::nearbyint(v * inverse_scale(channel));
  t = t > -kOutputZeroPoint ? t : -kOutputZeroPoint;
  t = t < 255 - kOutputZeroPoint ? t : 255 - kOutputZeroPoint;
  return static_cast<uint8_t>(static_cast<int>(t) + kOutputZeroPoint);
}

std::vector<float> plain_linear(const Problem& p, const Data& d) {
  std::vector<float> y;
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t c = 0; c < p.n; ++c) {
      int64_t sum = 0;
      for (int64_t i = 0; i < p.k; ++i)
        sum += (d.x[static_cast<size_t>(r * p.k + i)] - p.zero_point) * d.weight[static_cast<size_t>(c * p.k + i)];
      const auto at = static_cast<size_t>(c);
      float v = plain_activation(p.activation, std::fma(static_cast<float>(sum), d.scale[at], d.bias[at]));
      if (p.residual) v += d.residual[static_cast<size_t>(r * p.n + c)];
      y.push_back(p.quantized ? plain_quantize(v, c) : v);
    }
  }
  return y;
}

struct Padded {
  std::vector<int32_t> offset;
  std::vector<float> scale, bias, inverse_scale;
};

Padded pad(const Problem& p, const Data& d, const PackedWeights& w) {
  Padded out{std::vector<int32_t>(static_cast<size_t>(w.channels())), d.scale, d.bias, {}};
  for (size_t c = 0; c < out.offset.size(); ++c)
    out.offset[c] = (w.table().activation_offset - p.zero_point) * w.column_sums()[c];
  out.scale.resize(out.offset.size(), 1.0f);
  out.bias.resize(out.offset.size(), 0.0f);
  for (size_t c = 0; c < out.offset.size(); ++c) out.inverse_scale.push_back(inverse_scale(static_cast<int64_t>(c)));
  return out;
}

// Runs in blocks of odd sizes, as threads would. x, and y where it is quantized, end at an unreadable page.
std::vector<float> run_kernel(const Problem& p, const Data& d, const PackedWeights& w, int64_t block_rows, int64_t block_groups) {
  const Guarded x(d.x.data(), d.x.size(), static_cast<size_t>(kReadAhead));
  const size_t count = static_cast<size_t>(p.rows * p.n);
  const Guarded y(nullptr, count * (p.quantized ? 1 : sizeof(float)), 0);
  const Guarded residual(d.residual.data(), d.residual.size() * sizeof(float), 0);
  const Padded padded = pad(p, d, w);
  GemmArgs a;
  a.x = x.data();
  a.x_stride = p.k;
  a.weights = w.view();
  a.n = p.n;
  a.epilogue = {padded.offset.data(), padded.scale.data(), padded.bias.data(), p.activation, p.quantized,
                padded.inverse_scale.data(), kOutputZeroPoint};
  if (p.residual) a.residual = reinterpret_cast<const float*>(residual.data());
  a.residual_stride = a.y_stride = p.n;
  a.y = y.data();
  const GemmKernel kernel = w.table().gemm[static_cast<int>(w.form())];
  for (int64_t r = 0; r < p.rows; r += block_rows)
    for (int64_t g = 0; g < w.groups(); g += block_groups)
      kernel(a, {r, std::min(r + block_rows, p.rows), g, std::min(g + block_groups, w.groups())});
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i)
    out[i] = p.quantized ? y.data()[i] : reinterpret_cast<const float*>(y.data())[i];
  return out;
}

std::string describe(const Problem& p, const PackedWeights& w) {
  return std::string(w.table().isa) + " " + form_info(w.form()).name + " rows " + std::to_string(p.rows) + " k " +
         std::to_string(p.k) + " n " + std::to_string(p.n) + " pattern " + std::to_string(p.kept) + ":" +
         std::to_string(p.group) + " zero point " + std::to_string(p.zero_point) + " seed " + std::to_string(p.seed);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Every form of the instruction set that holds the problem's pattern.
std::vector<std::shared_ptr<const PackedWeights>> pack_all(const Problem& p, const Data& d, const KernelTable& table) {
  std::vector<std::shared_ptr<const PackedWeights>> packed{PackedWeights::dense(d.weight.data(), p.n, p.k, table)};
  if (!p.group) return packed;
  const SparseWeights sparse{d.values.data(), d.indices.data(), p.n, p.k, p.kept, p.group};
  for (int f = 0; f < static_cast<int>(Form::count); ++f) {
    const FormInfo& info = form_info(static_cast<Form>(f));
    if (info.shuffled && table.gemm[f] && info.window % p.group == 0)
      packed.push_back(PackedWeights::sparse(sparse, static_cast<Form>(f), table));
  }
  return packed;
}

void check_problem(const Problem& p) {
  const Data d = make_data(p);
  const auto expected = plain_linear(p, d);
  for (const KernelTable* table : available_tables()) {
    for (const auto& w : pack_all(p, d, *table)) {
      CHECK_SAY(same_bits(run_kernel(p, d, *w, p.rows, w->groups()), expected), describe(p, *w));
      CHECK_SAY(same_bits(run_kernel(p, d, *w, 5, 1), expected), describe(p, *w) + " in blocks");
    }
  }
}

Problem random_problem(std::mt19937& rng) {
  const auto below = [&](int n) { return static_cast<int>(rng() % static_cast<unsigned>(n)); };
  static constexpr int kPatterns[][2] = {{0, 0}, {2, 4}, {1, 4}, {4, 8}, {3, 8}, {4, 16}, {5, 16}, {4, 32}, {4, 64}, {1, 2}, {7, 64}};
  Problem p{1 + below(30), 1 + below(below(4) ? 140 : 600), 1 + below(80)};
  const auto& pattern = kPatterns[below(std::size(kPatterns))];
  p.kept = pattern[0];
  p.group = pattern[1];
  p.zero_point = below(3) ? below(256) : below(2) * 255;
  p.activation = static_cast<Activation>(below(3));
  p.quantized = below(2);
  p.residual = below(2);
  p.seed = rng();
  p.extreme = below(8) == 0;
  return p;
}

TEST(gemm_equals_plain_loops_on_random_problems) {
  std::mt19937 rng(20261120);
  for (int i = 0; i < 400; ++i) check_problem(random_problem(rng));
}

TEST(gemm_is_exact_for_extreme_inputs) {
  for (const int zero_point : {0, 128, 255})
    for (const int64_t k : {1, 3, 4, 63, 64, 65, 1021}) {
      Problem p{7, k, 33};
      p.zero_point = zero_point;
      p.extreme = true;
      p.seed = static_cast<unsigned>(k);
      check_problem(p);
      p.kept = 2, p.group = 4;
      check_problem(p);
    }
}

// Values that no INT32 and no 16-bit word holds, and infinities.
TEST(gemm_saturates_what_it_quantizes) {
  for (const float scale : {1.0f, 1e8f, 1e38f})
    for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu}) {
      Problem p{9, 40, 80, 2, 4, 100};
      p.activation = activation;
      p.quantized = true;
      p.scale = scale;
      check_problem(p);
      p.quantized = false;
      check_problem(p);
    }
}

TEST(gemm_runs_every_tile_height) {
  for (int64_t rows = 1; rows <= 29; ++rows) {
    Problem p{rows, 64, 48, 4, 16, 128};
    p.seed = static_cast<unsigned>(rows);
    check_problem(p);
    p.quantized = true;
    check_problem(p);
  }
}

template <class F>
std::string refusal(F f) {
  try {
    f();
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

TEST(packing_refuses_what_a_kernel_cannot_run) {
  const KernelTable& table = choose_table("scalar");
  const int8_t least[4] = {1, -128, 3, 4};
  CHECK(refusal([&] { PackedWeights::dense(least, 1, 4, table); }) ==
        "Expected symmetric weights in [-127, 127], found -128 in output channel 0; quantize the weights symmetrically.");
  CHECK(refusal([&] { PackedWeights::dense(least, 1, 0, table); }).find("found 1 x 0") != std::string::npos);
  const int8_t values[2] = {5, 6};
  const uint8_t indices[1] = {0x4};
  CHECK(refusal([&] { PackedWeights::sparse({values, indices, 1, 32, 4, 32}, Form::window8, table); }) ==
        "The form window8 reads windows of 8 input channels, which do not hold whole groups of the pattern 4:32; use a wider "
        "form or dense.");
  CHECK(refusal([&] { PackedWeights::sparse({values, indices, 1, 4, 2, 4}, Form::dense, table); }) ==
        "The form dense does not hold sparse weights on scalar.");
  const uint8_t outside[1] = {0xf};  // both weights at position 3 of a group whose input channels end at 2
  CHECK(refusal([&] { PackedWeights::sparse({values, outside, 1, 2, 2, 4}, Form::window8, table); }).find("position 3") !=
        std::string::npos);
}

TEST(an_unknown_instruction_set_is_refused_by_name) {
  const std::string text = refusal([] { choose_table("pentium"); });
  CHECK(text.find("\"pentium\"") != std::string::npos && text.find("scalar") != std::string::npos);
  CHECK(refusal([] { form_named("window7"); }) ==
        "Expected one of the packed forms dense, window8, window16, window64, found \"window7\".");
}

TEST(a_forced_instruction_set_is_the_one_that_runs) {
  for (const KernelTable* table : available_tables()) CHECK(&choose_table(table->isa) == table);
}

}  // namespace
}  // namespace openwork
