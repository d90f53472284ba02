// Products on a matrix unit, in hardware where this machine has one and by arrays everywhere, against the plain loops of
// docs/arithmetic.md; and what the packer finds in weights whose channels share masks.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/tiles/cut.h"
#include "runtime/linear/layer.h"
#include "simd/array_tiles.h"
#include "test/harness.h"
#include "test/problem.h"

namespace openwork::test {
namespace {

constexpr Form kTileForms[] = {Form::tiles, Form::tiles16, Form::tiles32, Form::tiles64, Form::tiles128, Form::tilespacked};

void check_problem(const Problem& p, int64_t block_rows = 0) {
  const Data d = make_data(p);
  const auto expected = plain_outputs(p, d, plain_sums(p, d));
  const auto magnitudes = p.type == Type::bf16 ? plain_magnitudes(p, d) : std::vector<double>();
  for (const KernelTable* table : available_tables())
    for (const Form form : kTileForms) {
      if (!refusal(p.shape, p.type, form, *table).empty()) continue;
      const auto w = PackedWeights::pack(p.shape, p.type, d.weight.data(), form, *table);
      const auto y = run_kernel(p, d, *w, block_rows > 0 ? block_rows : p.rows, block_rows > 0 ? 1 : w->groups());
      CHECK_SAY(p.type == Type::bf16 ? close(y, expected, magnitudes, p.shape.k()) : same_bits(y, expected), describe(p, *w));
    }
}

template <class T, size_t n>
T one_of(const T (&from)[n], std::mt19937& rng) {
  return from[rng() % n];
}

const Zeros kShared[] = {{},
                         {64, 128, 64},
                         {64, 256, 128},
                         {4, 8, 64},
                         {2, 4, 64},
                         {32, 64, 32},
                         {16, 64, 16},
                         {8, 64, 16},
                         {2, 4},
                         {4, 16},
                         {0, 0, 4, 16, 0.85},
                         {0, 0, 16, 1, 0.9},
                         {0, 0, 1, 1, 0.95},
                         {0, 0, 1, 1, 1.0}};

WeightShape random_shape(std::mt19937& rng) {
  const int64_t n[] = {1, 15, 16, 17, 32, 33, 48, 64, 65, 130, 256}, k[] = {1, 3, 4, 31, 63, 64, 65, 127, 128, 130, 260, 520};
  if (rng() % 3) return {one_of(n, rng), one_of(k, rng)};
  const int64_t channels[] = {1, 3, 8, 16, 17, 32, 64, 70};
  WeightShape s{one_of(n, rng), one_of(channels, rng)};
  s.kernel_h = 1 + static_cast<int64_t>(rng() % 3);
  s.kernel_w = 1 + static_cast<int64_t>(rng() % 3);
  if (rng() % 2) {
    s.groups = 1 + static_cast<int64_t>(rng() % 5);
    s.n = s.groups * one_of({4L, 8L, 16L, 32L}, rng);
  }
  s.merged = rng() % 3 == 0;
  s.copied = !s.merged && rng() % 3 == 0;
  return s;
}

Problem random_problem(unsigned seed) {
  std::mt19937 rng(seed);
  const int64_t rows[] = {1, 2, 4, 15, 16, 17, 31, 32, 33, 47, 49, 64, 65, 130};
  Problem p;
  p.seed = seed;
  p.shape = random_shape(rng);
  p.rows = one_of(rows, rng);
  // A few hundred thousand products each.
  while (p.rows > 4 && p.rows * p.shape.n * p.shape.k() > 400000) p.rows /= 2;
  p.type = rng() % 4 ? Type::i8 : Type::bf16;
  p.zeros = one_of(kShared, rng);
  p.extreme = rng() % 8 == 0;
  p.residual = rng() % 3 == 0;
  if (p.type == Type::bf16) return p;  // the bound is of the sums
  const int zero_points[] = {0, 255, 128, 7};
  p.zero_point = one_of(zero_points, rng);
  p.quantized = rng() % 2;
  p.activation = static_cast<Activation>(rng() % 3);
  return p;
}

// A run of copied taps is one run to the tests' plain loops too.
Problem as_matrix(Problem p) {
  if (!p.shape.copied) return p;
  p.shape = {p.shape.n, p.shape.k(), 1, 1, 1};
  return p;
}

TEST(tiles_equal_plain_loops_on_random_problems) {
  const unsigned problems = random_problems(2000);
  for (unsigned seed = 0; seed < problems; ++seed) {
    const Problem p = as_matrix(random_problem(seed));
    check_problem(p, seed % 4 == 0 ? 37 : 0);
  }
}

TEST(tiles_run_every_number_of_rows) {
  for (int64_t rows = 1; rows <= 70; ++rows) {
    Problem p = matrix(rows, 200, 80);
    p.zeros = rows % 2 ? Zeros{64, 128, 64} : Zeros{2, 4};
    p.zero_point = 128;
    p.quantized = rows % 3 == 0;
    p.seed = static_cast<unsigned>(rows);
    check_problem(p);
  }
  // More panels than a kernel for few rows has at once.
  check_problem(matrix(300, 70, 33));
}

TEST(tiles_are_exact_at_the_extremes) {
  for (const int zero_point : {0, 255})
    for (const int64_t k : {63, 64, 65, 2048, 4608}) {
      Problem p = matrix(17, k, 33);
      p.zero_point = zero_point;
      p.extreme = true;
      p.scale = 1e-7f;
      check_problem(p);
    }
}

// What stands behind a row, and in columns that a mask leaves out, is no number: it must not reach a sum.
TEST(tiles_of_bf16_leave_out_what_is_no_number) {
  for (const int64_t k : {33, 64, 100}) {
    Problem p = matrix(20, k, 64);
    p.type = Type::bf16;
    p.zeros = {1, 4, 64};
    Data d = make_data(p);
    const auto expected = plain_outputs(p, d, plain_sums(p, d));
    for (int64_t i = 0; i < k; ++i) {
      bool kept = false;
      for (int64_t c = 0; c < 64; ++c) kept = kept || element(d.weight, p.type, c * k + i, true) != 0.0;
      for (int64_t r = 0; r < p.rows && !kept; ++r) d.x[static_cast<size_t>(2 * (r * k + i))] = d.x[static_cast<size_t>(2 * (r * k + i) + 1)] = 0xff;
    }
    for (const KernelTable* table : available_tables()) {
      if (!table->kernel(p.type, Form::tiles64)) continue;
      const auto w = PackedWeights::pack(p.shape, p.type, d.weight.data(), Form::tiles64, *table);
      CHECK_SAY(close(run_kernel(p, d, *w, p.rows, 1), expected, std::vector<double>(expected.size(), static_cast<double>(k)), k), describe(p, *w));
    }
  }
}

const KernelTable& emulated() { return choose_table("amx_emulated"); }

int64_t steps(const Problem& p, Form form) {
  return PackedWeights::pack(p.shape, p.type, make_data(p).weight.data(), form, emulated())->steps();
}

// 64 bytes a step, of up to four lines.
TEST(tiles_take_as_many_steps_as_shared_masks_keep_lines) {
  Problem p = matrix(1, 1024, 128);
  CHECK(steps(p, Form::tiles) == 4 * 1024 / 64);
  CHECK(steps(p, Form::tiles64) == 2 * 1024 / 64);
  struct {
    Zeros zeros;
    Form form;
    int64_t steps;
  } const cases[] = {{{64, 128, 64}, Form::tiles64, 2 * 512 / 64},  {{4, 8, 64}, Form::tiles64, 2 * 512 / 64},
                     {{2, 4, 64}, Form::tiles64, 2 * 512 / 64},     {{64, 256, 128}, Form::tiles128, 256 / 64},
                     {{64, 256, 128}, Form::tiles64, 2 * 256 / 64}, {{16, 64, 32}, Form::tiles32, 4 * 256 / 64},
                     {{8, 64, 16}, Form::tiles16, 8 * 256 / 64}};  // an eighth: four lines hold 32 bytes
  for (const auto& c : cases) {
    p.zeros = c.zeros;
    CHECK_SAY(steps(p, c.form) == c.steps, describe(p) + " " + form_info(c.form).name + " " + std::to_string(steps(p, c.form)));
  }
}

TEST(tiles_are_compressed_to_masks_and_what_is_not_zero) {
  Problem p = matrix(1, 512, 64);
  p.zeros = {2, 4};
  const Data d = make_data(p);
  const auto w = PackedWeights::pack(p.shape, p.type, d.weight.data(), Form::tilespacked, emulated());
  const auto kept = static_cast<int64_t>(d.weight.size()) - std::count(d.weight.begin(), d.weight.end(), uint8_t{0});
  // Each group's to whole lines, and a line to read on.
  CHECK_SAY(w->bytes() >= 512 * 64 / 8 + kept && w->bytes() <= 512 * 64 / 8 + kept + 3 * 64, std::to_string(w->bytes()));
}

TEST(tiles_say_what_grouped_weights_need) {
  const std::string text = refusal({32, 16, 3, 3, 2}, Type::i8, Form::tiles, emulated());
  CHECK_SAY(text == "The form tiles multiplies all input channels, and these weights are in 2 groups; use a form that shares masks.", text);
  CHECK(refusal({32, 16, 3, 3, 2}, Type::i8, Form::tiles16, emulated()).empty());
  CHECK(refusal({32, 16}, Type::f32, Form::tiles, emulated()) == "The form tiles is not on amx_emulated for f32.");
}

// The unit itself: the sums that the manual defines, by another order of loops.
TEST(array_tiles_multiply_as_the_manual_says) {
  std::mt19937 rng(3);
  uint8_t x[16][64], w[16][64];
  for (auto& row : x)
    for (auto& byte : row) byte = static_cast<uint8_t>(rng());
  for (auto& row : w)
    for (auto& byte : row) byte = static_cast<uint8_t>(rng());
  struct Words {};
  ArrayTiles<Words> tiles;
  tiles.configure({5, 16, 16, 16, 5, 16, 16, 16});
  tiles.load<4>(x, 64);
  tiles.load<6>(w, 64);
  tiles.zero<0>();
  tiles.dot_i8<0, 4, 6>();
  tiles.dot_i8<0, 4, 6>();
  int32_t found[16][16] = {};
  tiles.store<0>(found, 64);
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 16; ++c) {
      int32_t sum = 0;
      for (int i = 0; i < 64; ++i) sum += 2 * x[r][i] * static_cast<int8_t>(w[i / 4][4 * c + i % 4]);
      CHECK(found[r][c] == (r < 5 ? sum : 0));
    }
}

// An emulated unit is for tests: nothing runs on it unasked.
TEST(an_emulated_matrix_unit_is_never_chosen_by_itself) {
  CHECK(emulated().emulated);
  for (const InstructionSet& set : instruction_sets()) {
    CHECK_SAY((set.table == nullptr) == !set.lacks.empty() && set.emulated == set.name.starts_with("amx_emulated"), set.name);
    if (!set.table) CHECK_SAY(refusal([&] { choose_table(set.name); }).find("this machine has no " + set.lacks) != std::string::npos, set.name);
  }
}

}  // namespace
}  // namespace openwork::test
