// Epilogues on every instruction set of this machine against plain loops written from docs/arithmetic.md: the same bits. What
// is read and written ends at an unreadable page.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "runtime/epilogue.h"
#include "test/guarded.h"
#include "test/harness.h"
#include "test/plain_epilogue.h"
#include "test/tables.h"

namespace openwork {

using test::from_bits;
using test::plain_bf16;
using test::PlainEpilogue;
using test::refusal;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Problem {
  int64_t rows = 1, n = 1;
  EpilogueSpec spec = {};
  bool floats = false;  // the sums
  unsigned seed = 0;
  bool extreme = false;  // among the sums and residuals
};

struct Data {
  std::vector<int32_t> integers;  // sums [rows, channels]
  std::vector<float> floats;
  std::vector<uint8_t> residual;  // its bytes [rows, n]
};

int64_t channels_of(const Problem& p) { return (p.n + kStripLanes - 1) / kStripLanes * kStripLanes; }

// The residual's number, the zero point left in it.
float plain_residual(const Problem& p, const Data& d, size_t at) {
  if (p.spec.residual == Stored::u8) return static_cast<float>(d.residual[at]);
  if (p.spec.residual == Stored::bf16) {
    uint16_t v;
    std::memcpy(&v, d.residual.data() + 2 * at, 2);
    return from_bits(static_cast<uint32_t>(v) << 16);
  }
  float v;
  std::memcpy(&v, d.residual.data() + 4 * at, 4);
  return v;
}

float plain_sum(const Problem& p, const Data& d, int64_t r, int64_t c) {
  const auto at = static_cast<size_t>(r * channels_of(p) + c);
  return p.floats ? d.floats[at] : static_cast<float>(d.integers[at]);
}

void append(std::vector<uint8_t>& bytes, const void* value, size_t size) {
  const auto* p = static_cast<const uint8_t*>(value);
  bytes.insert(bytes.end(), p, p + size);
}

void append_plain(const Problem& p, const Data& d, const PlainEpilogue& plain, int64_t r, int64_t c, std::vector<uint8_t>& y) {
  const EpilogueSpec& s = p.spec;
  const float residual = s.residual ? plain_residual(p, d, static_cast<size_t>(r * p.n + c)) : 0.0f;
  const float v = plain(plain_sum(p, d, r, c), residual, c);
  if (s.output == Stored::f32) return append(y, &v, 4);
  if (s.output == Stored::bf16) {
    const uint16_t b = plain_bf16(v);
    return append(y, &b, 2);
  }
  auto q = static_cast<uint8_t>(v);
  if (s.lookup) q = (*s.lookup)[q];
  y.push_back(s.output == Stored::s8 ? static_cast<uint8_t>(q - 128) : q);
}

std::vector<uint8_t> plain_epilogue(const Problem& p, const Data& d) {
  std::vector<uint8_t> y;
  const PlainEpilogue plain(p.spec);
  for (int64_t r = 0; r < p.rows; ++r)
    for (int64_t c = 0; c < p.n; ++c) append_plain(p, d, plain, r, c, y);
  return y;
}

float extreme_float(std::mt19937& rng) {
  static constexpr float kSome[] = {0.0f, -0.0f, kInfinity, -kInfinity, kNan, 1e30f, -1e30f, 3e38f, 1e-40f, 8.5f, -18.0f, 17.34f};
  return kSome[rng() % std::size(kSome)];
}

Data make_data(const Problem& p, std::mt19937& rng) {
  std::normal_distribution<float> normal(0.0f, 4.0f);
  const auto number = [&] { return p.extreme && rng() % 4 == 0 ? extreme_float(rng) : normal(rng); };
  Data d;
  for (int64_t i = 0; i < p.rows * channels_of(p); ++i) {
    static constexpr int32_t kSome[] = {0, 1, -1, INT32_MAX, INT32_MIN, 16777217};
    const auto usual = static_cast<int32_t>(normal(rng) * 1000);
    d.integers.push_back(p.extreme && rng() % 4 == 0 ? kSome[rng() % std::size(kSome)] : usual);
    d.floats.push_back(number());
  }
  if (!p.spec.residual) return d;
  for (int64_t i = 0; i < p.rows * p.n; ++i) {
    const float v = number();
    const uint16_t b = plain_bf16(v);
    const auto byte = static_cast<uint8_t>(rng());
    if (p.spec.residual == Stored::f32) append(d.residual, &v, 4);
    if (p.spec.residual == Stored::bf16) append(d.residual, &b, 2);
    if (p.spec.residual == Stored::u8) d.residual.push_back(byte);
  }
  return d;
}

// NaN of any sign and payload is NaN.
bool same(const Problem& p, const uint8_t* found, const std::vector<uint8_t>& expected) {
  if (is_quantized(p.spec.output)) return std::memcmp(found, expected.data(), expected.size()) == 0;
  const size_t size = static_cast<size_t>(stored_bytes(p.spec.output));
  for (size_t i = 0; i < expected.size(); i += size) {
    uint32_t a = 0, b = 0;
    std::memcpy(&a, found + i, size);
    std::memcpy(&b, expected.data() + i, size);
    const int up = size == 2 ? 16 : 0;
    if (a != b && !(std::isnan(from_bits(a << up)) && std::isnan(from_bits(b << up)))) return false;
  }
  return true;
}

// In pieces as tiles make them: some rows of some channels.
void run_pieces(const KernelTable& table, FinishArgs a, int64_t rows, int64_t n, int64_t tile_rows, int64_t tile_channels) {
  for (int64_t c = 0; c < n; c += tile_channels) {
    a.channel = c;
    a.channels = std::min(tile_channels, (n - c + kStripLanes - 1) / kStripLanes * kStripLanes);
    FinishArgs piece = a;
    piece.integers = a.integers ? a.integers + c : nullptr;
    piece.floats = a.floats ? a.floats + c : nullptr;
    for (int64_t r = 0; r < rows; r += tile_rows) table.finish_sums(piece, r, std::min(r + tile_rows, rows));
  }
}

struct TileSize {
  int64_t rows, channels;
};

bool matches_once(const Problem& p, const Data& d, const std::vector<uint8_t>& expected, const KernelTable& table, const TileSize& tile,
                  bool in_place) {
  const PreparedEpilogue prepared(p.spec, channels_of(p));
  const Guarded residual(d.residual.data(), d.residual.size(), 0);
  const Guarded y(nullptr, expected.size(), 0);
  FinishArgs a;
  a.product.n = p.n;
  a.product.epilogue = prepared.view();
  a.product.residual = p.spec.residual ? residual.data() : nullptr;
  a.product.residual_stride = a.product.y_stride = p.n;
  a.product.y = in_place ? residual.data() : y.data();
  a.integers = p.floats ? nullptr : d.integers.data();
  a.floats = p.floats ? d.floats.data() : nullptr;
  a.stride = channels_of(p);
  run_pieces(table, a, p.rows, p.n, tile.rows, tile.channels);
  return same(p, static_cast<const uint8_t*>(a.product.y), expected);
}

// Where the residual is as wide as what is stored, also with both in one place.
bool matches(const Problem& p, const Data& d, const std::vector<uint8_t>& expected, const KernelTable& table, int64_t tile_rows,
             int64_t tile_channels) {
  const TileSize tile{tile_rows, tile_channels};
  const bool in_place = p.spec.residual && stored_bytes(*p.spec.residual) == stored_bytes(p.spec.output);
  return matches_once(p, d, expected, table, tile, false) && (!in_place || matches_once(p, d, expected, table, tile, true));
}

std::string describe(const Problem& p, const KernelTable& table) {
  const auto number = [](int64_t v) { return std::to_string(v); };
  const EpilogueSpec& s = p.spec;
  return std::string(table.isa) + " rows " + number(p.rows) + " n " + number(p.n) + " activation " +
         number(static_cast<int>(s.activation.kind)) + (s.activation_last ? " last" : " first") + " residual " +
         (s.residual ? number(static_cast<int>(*s.residual)) : "none") + " output " + number(static_cast<int>(s.output)) +
         (s.lookup ? " lookup" : "") + (p.floats ? " float sums" : "") + (p.extreme ? " extreme" : "") + " seed " + number(p.seed);
}

void check_problem(const Problem& p) {
  std::mt19937 rng(p.seed);
  const Data d = make_data(p, rng);
  const auto expected = plain_epilogue(p, d);
  for (const KernelTable* table : test::own_tables()) {
    CHECK_SAY(matches(p, d, expected, *table, 5, 512), describe(p, *table));
    CHECK_SAY(matches(p, d, expected, *table, 14, 64), describe(p, *table) + " in four strips");
    CHECK_SAY(matches(p, d, expected, *table, 3, 32), describe(p, *table) + " in two strips");
    CHECK_SAY(matches(p, d, expected, *table, 6, 16), describe(p, *table) + " in single strips");
  }
}

// The numbers that belong to the channels.
void fill_channels(Problem& p, std::mt19937& rng, double size) {
  std::uniform_real_distribution<float> real(0.5f, 1.5f);
  for (int64_t c = 0; c < p.n; ++c) {
    p.spec.scale.push_back(p.floats ? 1.0f : static_cast<float>(size * 1e-3 * real(rng)));
    p.spec.bias.push_back(real(rng) - 1.0f);
    if (is_quantized(p.spec.output)) p.spec.inverse_scale.push_back(real(rng) * (p.spec.activation.kind == Activation::tanh ? 100.0f : 12.0f));
  }
  p.spec.residual_scale = 0.05f;
  const auto zero_point = [&] { return static_cast<int>(rng() % 4 ? rng() % 256 : rng() % 2 * 255); };
  if (p.spec.residual == Stored::u8) p.spec.residual_zero_point = zero_point();
  p.spec.y_zero_point = zero_point();
}

const char* const kNames[] = {"none", "relu", "relu6", "clip", "leaky_relu", "hard_sigmoid", "hard_swish", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"};

LookupTable some_table(std::mt19937& rng) {
  LookupTable table;
  for (auto& v : table) v = static_cast<uint8_t>(rng());
  return table;
}

// Every epilogue there is, each once for every order, kind of sums and table.
template <class F>
void each_epilogue(const F& f) {
  for (const char* name : kNames)
    for (const int residual : {-1, 0, 1, 2})
      for (const Stored output : {Stored::f32, Stored::bf16, Stored::u8, Stored::s8})
        for (int variant = 0; variant < (is_quantized(output) ? 8 : 4); ++variant) {
          Problem p;
          p.spec.activation = activation_named(name);
          if (std::string(name) == "clip") p.spec.activation.alpha = -1.5f, p.spec.activation.beta = 2.25f;
          if (residual >= 0) p.spec.residual = static_cast<Stored>(residual);
          p.spec.output = output;
          p.spec.activation_last = variant & 1;
          p.floats = variant & 2;
          if (variant & 4) p.spec.lookup.emplace();
          f(p);
        }
}

TEST(epilogues_equal_plain_loops) {
  std::mt19937 rng(20261121);
  static constexpr int64_t kWidths[] = {1, 15, 16, 17, 32, 47, 64, 80, 101, 130, 200};
  each_epilogue([&](Problem p) {
    p.rows = 1 + static_cast<int64_t>(rng() % 17);
    p.n = kWidths[rng() % std::size(kWidths)];
    p.extreme = rng() % 2;
    p.seed = rng();
    if (p.spec.lookup) p.spec.lookup = some_table(rng);
    fill_channels(p, rng, 1.0);
    check_problem(p);
  });
}

TEST(epilogues_at_every_width_and_height) {
  for (int64_t n = 1; n <= 131; ++n) {
    Problem p;
    p.rows = 1 + n % 9;
    p.n = n;
    p.seed = static_cast<unsigned>(n);
    p.spec.output = n % 2 ? Stored::u8 : Stored::bf16;
    p.spec.residual = Stored::u8;
    p.spec.activation = activation_named("relu");
    p.spec.activation_last = true;
    std::mt19937 rng(p.seed);
    fill_channels(p, rng, 1.0);
    check_problem(p);
  }
}

// Scales whose products with the output's leave binary32, or INT32.
TEST(epilogues_saturate) {
  for (const double size : {1e3, 1e10, 1e36, 1e41, 1e-42})
    for (const char* name : {"none", "relu", "relu6", "gelu"})
      for (const int residual : {-1, 0, 2})
        for (const bool last : {false, true}) {
          Problem p{7, 37};
          p.seed = 5;
          p.extreme = true;
          p.spec.activation = activation_named(name);
          p.spec.activation_last = last;
          if (residual >= 0) p.spec.residual = static_cast<Stored>(residual);
          p.spec.output = Stored::u8;
          std::mt19937 rng(p.seed);
          fill_channels(p, rng, size);
          check_problem(p);
        }
}

// Each u8 there is, and both kinds of bytes, through the table; whole registers and parts.
TEST(lookup_finds_every_byte) {
  std::mt19937 rng(8);
  for (const Stored output : {Stored::u8, Stored::s8}) {
    Problem p{1, 256 + 9};
    p.spec.output = output;
    p.spec.y_zero_point = 0;
    p.spec.lookup = some_table(rng);
    Data d;
    for (int64_t c = 0; c < p.n; ++c) p.spec.scale.push_back(1.0f), p.spec.inverse_scale.push_back(1.0f);
    for (int64_t c = 0; c < channels_of(p); ++c) d.integers.push_back(static_cast<int32_t>(c % 256));
    const auto expected = plain_epilogue(p, d);
    for (const KernelTable* table : test::own_tables()) CHECK_SAY(matches(p, d, expected, *table, 1, 512), describe(p, *table));
  }
}

// What lies behind the last channel of each row stays as it was.
TEST(epilogues_write_their_channels_only) {
  for (const Stored output : {Stored::f32, Stored::bf16, Stored::u8, Stored::s8})
    for (const KernelTable* table : test::own_tables()) {
      Problem p{4, 43};
      p.spec.output = output;
      std::mt19937 rng(9);
      fill_channels(p, rng, 1.0);
      const PreparedEpilogue prepared(p.spec, channels_of(p));
      const std::vector<int32_t> sums(static_cast<size_t>(p.rows * channels_of(p)), 77);
      const size_t size = static_cast<size_t>(stored_bytes(output)), stride = 64 * size;
      std::vector<uint8_t> y(static_cast<size_t>(p.rows) * stride, 0xa5);
      FinishArgs a;
      a.product.n = p.n;
      a.product.epilogue = prepared.view();
      a.product.y = y.data();
      a.product.y_stride = 64;
      a.integers = sums.data();
      a.stride = channels_of(p);
      a.channels = channels_of(p);
      table->finish_sums(a, 0, p.rows);
      size_t changed = 0;
      for (size_t i = 0; i < y.size(); ++i) changed += i % stride >= static_cast<size_t>(p.n) * size && y[i] != 0xa5;
      CHECK_SAY(changed == 0, describe(p, *table));
    }
}

TEST(epilogues_refuse_what_no_kernel_takes) {
  EpilogueSpec spec;
  spec.scale.assign(1, 1.0f);
  const auto prepare = [&] { const PreparedEpilogue prepared(spec, 16); };
  spec.residual = Stored::s8;
  CHECK(refusal(prepare) == "Expected a residual of f32, bf16 or u8, found s8; add 128 to its bytes and zero point.");
  spec.residual.reset();
  spec.lookup.emplace();
  CHECK(refusal(prepare) == "Expected a lookup table only where the output is quantized.");
  spec.lookup.reset();
  spec.activation = {Activation::clip, 2.0f, 1.0f};
  CHECK(refusal(prepare) == "Activation: expected a clip whose low end, alpha, is at most its high end, beta, found 2.000000 and 1.000000.");
  spec.activation = {Activation::leaky_relu, kNan};
  CHECK(refusal(prepare) == "Activation: expected numbers as the activation's alpha and beta, found NaN.");
  CHECK(refusal([] { activation_named("swish"); }).find("relu6, clip") != std::string::npos);
}

}  // namespace
}  // namespace openwork
