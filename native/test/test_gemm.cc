// Products of every instruction set of this machine against plain loops written from docs/arithmetic.md: the same bits for
// INT8 and FP32, BF16 within the rounding of its sums.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "test/harness.h"
#include "test/problem.h"

namespace openwork::test {
namespace {

void check_problem(const Problem& p, bool in_blocks = true) {
  const Data d = make_data(p);
  const auto expected = plain_outputs(p, d, plain_sums(p, d));
  const auto magnitudes = p.type == Type::bf16 ? plain_magnitudes(p, d) : std::vector<double>();
  for (const KernelTable* table : available_tables())
    for (const auto& w : pack_all(p, d, *table)) {
      const auto right = [&](const std::vector<float>& y) {
        return p.type == Type::bf16 ? close(y, expected, magnitudes, p.shape.k()) : same_bits(y, expected);
      };
      CHECK_SAY(right(run_kernel(p, d, *w, p.rows, w->groups())), describe(p, *w));
      if (in_blocks) CHECK_SAY(right(run_kernel(p, d, *w, 5, 1)), describe(p, *w) + " in blocks");
    }
}

const Zeros kGroups[] = {{2, 4}, {1, 4}, {4, 8}, {4, 16}, {4, 32}, {4, 64}, {3, 7}, {2, 4, 2}, {2, 4, 4}, {4, 16, 2}, {4, 16, 4}};
const Zeros kBlocks[] = {{0, 0, 4, 1, 0.8}, {0, 0, 2, 1, 0.75}, {0, 0, 4, 16, 0.85}, {0, 0, 1, 4, 0.7}, {0, 0, 1, 1, 0.9},
                         {0, 0, 1, 1, 1.0}};

TEST(gemm_equals_plain_loops) {
  unsigned seed = 1;
  for (const int64_t k : {1, 4, 31, 64, 100, 384})
    for (const int64_t n : {1, 16, 17, 40, 70}) {
      Problem p = matrix(23, k, n);
      p.seed = seed++;
      p.zero_point = 131;
      check_problem(p);
    }
}

TEST(gemm_equals_plain_loops_on_every_pattern_and_type) {
  unsigned seed = 100;
  for (const Type type : {Type::i8, Type::bf16, Type::f32})
    for (const auto& zeros : {std::vector<Zeros>(std::begin(kGroups), std::end(kGroups)),
                              std::vector<Zeros>(std::begin(kBlocks), std::end(kBlocks))})
      for (const Zeros& z : zeros)
        for (const int64_t n : {40, 70}) {
          Problem p = matrix(15, 200, n);
          p.type = type;
          p.zeros = z;
          p.seed = seed++;
          p.zero_point = type == Type::i8 ? 77 : 0;
          check_problem(p);
        }
}

TEST(gemm_puts_ordered_channels_back) {
  Problem p = matrix(9, 96, 700);
  p.zeros = {0, 0, 1, 1, 0.9};
  p.seed = 7;
  Data d = make_data(p);
  // Every third channel is nearly empty, so that an order pays.
  for (int64_t c = 0; c < p.shape.n; ++c)
    for (int64_t i = 0; i < p.shape.k(); ++i)
      if (c % 3 && i % 7) d.weight[static_cast<size_t>(c * p.shape.k() + i)] = 0;
  const auto expected = plain_outputs(p, d, plain_sums(p, d));
  int ordered = 0;
  for (const KernelTable* table : available_tables())
    for (const auto& w : pack_all(p, d, *table)) {
      ordered += w->span() > 1;
      CHECK_SAY(same_bits(run_kernel(p, d, *w, p.rows, w->groups()), expected), describe(p, *w));
      CHECK_SAY(same_bits(run_kernel(p, d, *w, 4, 1), expected), describe(p, *w) + " in blocks");
    }
  CHECK(ordered > 0);
}

TEST(gemm_takes_runs_from_pointers) {
  unsigned seed = 300;
  for (const bool merged : {false, true})
    for (const Type type : {Type::i8, Type::bf16, Type::f32})
      for (const int64_t channels : {1, 3, 8, 30, 64})
        for (const Zeros& z : {Zeros{}, kGroups[0], kGroups[3], kBlocks[0], kBlocks[4]}) {
          Problem p;
          p.rows = 14;
          p.shape = {37, channels, 3, 2, 1, merged};
          p.type = type;
          p.zeros = z;
          p.seed = seed++;
          check_problem(p);
        }
}

TEST(gemm_runs_grouped_convolutions_as_block_diagonal_matrices) {
  unsigned seed = 400;
  for (const bool merged : {false, true})
    for (const int64_t channels : {1, 4, 8, 32})
      for (const int64_t per_group : {1, 8, 32}) {
        Problem p;
        p.rows = 10;
        p.shape = {per_group * 6, channels, 3, 3, 6, merged};
        p.seed = seed++;
        p.zero_point = 3;
        check_problem(p);
        p.zeros = {2, 4};
        check_problem(p);
      }
}

// What is no number in one group's activations stays there.
TEST(gemm_keeps_the_groups_of_bf16_apart) {
  Problem p;
  p.rows = 5;
  p.shape = {64, 3, 1, 1, 2};
  p.type = Type::bf16;
  Data d = make_data(p);
  for (int64_t i = 0; i < d.pixels * 6; ++i)
    if (i % 6 >= 3) d.x[static_cast<size_t>(2 * i)] = d.x[static_cast<size_t>(2 * i + 1)] = 0xff;
  for (const KernelTable* table : available_tables())
    for (const auto& w : pack_all(p, d, *table)) {
      if (w->form() != Form::dense) continue;
      const auto y = run_kernel(p, d, *w, p.rows, w->groups());
      for (size_t i = 0; i < y.size(); ++i) CHECK_SAY(std::isnan(y[i]) == (i % 64 >= 32), describe(p, *w));
    }
}

TEST(gemm_equals_plain_loops_on_every_epilogue) {
  unsigned seed = 200;
  for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu})
    for (const bool quantized : {false, true})
      for (const bool residual : {false, true})
        for (const int zero_point : {0, 9, 255})
          for (const int64_t n : {16, 45, 67})
            for (const Zeros& z : {Zeros{2, 4}, Zeros{2, 4, 4}}) {
              Problem p = matrix(17, 72, n);
              p.zeros = z;
              p.zero_point = zero_point;
              p.activation = activation;
              p.quantized = quantized;
              p.residual = residual;
              p.seed = seed++;
              check_problem(p);
            }
}

TEST(gemm_is_exact_at_the_extremes) {
  for (const int zero_point : {0, 128, 255})
    for (const int64_t k : {1, 3, 4, 63, 64, 65, 1021}) {
      Problem p = matrix(7, k, 33);
      p.zero_point = zero_point;
      p.extreme = true;
      p.seed = static_cast<unsigned>(k);
      check_problem(p);
      p.zeros = {2, 4};
      check_problem(p);
    }
}

// Values that no INT32 and no 16-bit word holds, and infinities.
TEST(gemm_saturates_what_it_quantizes) {
  for (const float scale : {1.0f, 1e8f, 1e38f})
    for (const Activation activation : {Activation::none, Activation::relu, Activation::gelu}) {
      Problem p = matrix(9, 40, 80);
      p.zeros = {2, 4};
      p.zero_point = 100;
      p.activation = activation;
      p.quantized = true;
      p.scale = scale;
      check_problem(p);
      p.quantized = false;
      check_problem(p);
    }
}

TEST(gemm_runs_every_tile_height) {
  for (int64_t rows = 1; rows <= 29; ++rows)
    for (const Zeros& z : {Zeros{4, 16}, Zeros{2, 4, 2}, Zeros{2, 4, 4}}) {
      Problem p = matrix(rows, 64, 48);
      p.zeros = z;
      p.zero_point = 128;
      p.seed = static_cast<unsigned>(rows);
      check_problem(p);
      p.quantized = true;
      check_problem(p, false);
      p.quantized = false;
      p.type = Type::f32;
      check_problem(p, false);
    }
}

// A problem of at most a few ten thousand products, of any kind.
Problem random_problem(unsigned seed) {
  std::mt19937 rng(seed);
  const auto upto = [&](int64_t most) { return static_cast<int64_t>(1 + rng() % static_cast<unsigned>(most)); };
  const auto chance = [&](unsigned one_in) { return rng() % one_in == 0; };
  Problem p;
  p.seed = seed;
  p.rows = chance(4) ? upto(40) : upto(15);
  p.shape = {chance(3) ? upto(90) : upto(34), chance(3) ? upto(150) : upto(40)};
  if (chance(4)) {
    const int64_t groups = chance(2) ? upto(6) : 1;
    p.shape = {upto(12) * groups, upto(20), upto(3), upto(3), groups, chance(2)};
  }
  p.type = chance(5) ? Type::bf16 : chance(4) ? Type::f32 : Type::i8;
  if (chance(2)) p.zeros = kGroups[rng() % std::size(kGroups)];
  else if (chance(2)) p.zeros = kBlocks[rng() % std::size(kBlocks)];
  p.extreme = chance(5);
  p.zero_point = p.type != Type::i8 ? 0 : chance(3) ? (chance(2) ? 0 : 255) : static_cast<int>(rng() % 256);
  p.activation = static_cast<Activation>(rng() % 3);
  p.quantized = p.type != Type::bf16 && chance(2);
  p.residual = chance(3);
  if (p.type == Type::bf16) p.activation = Activation::none;  // the bound is of the sums
  return p;
}

// A failing one is named with its seed.
TEST(gemm_equals_plain_loops_on_random_problems) {
  const unsigned problems = random_problems(10000);
  for (unsigned i = 0; i < problems; ++i) check_problem(random_problem(1000000 + i), i % 8 == 0);
}

TEST(packing_refuses_what_a_kernel_cannot_run) {
  const KernelTable& table = choose_table("scalar");
  const int8_t least[4] = {1, -128, 3, 4};
  const auto pack = [&](const WeightShape& shape, Form form) {
    return refusal([&] { PackedWeights::pack(shape, Type::i8, least, form, table); });
  };
  CHECK(pack({1, 4}, Form::dense) ==
        "Expected symmetric weights in [-127, 127], found -128 in output channel 0; quantize the weights symmetrically.");
  CHECK(pack({1, 0}, Form::dense).find("found 1 output channels in 1 groups, 0 input channels") != std::string::npos);
  CHECK(pack({1, 70000}, Form::dense).find("a longer reduction could overflow INT32") != std::string::npos);
  CHECK(pack({2, 1, 1, 1, 2}, Form::dense).find("use a shuffled form") != std::string::npos);
  CHECK(refusal([&] { PackedWeights::pack({1, 1}, Type::f32, least, Form::window8, table); }) ==
        "The form window8 is not on scalar for f32.");
}

TEST(packing_takes_no_more_steps_than_the_pattern_needs) {
  const KernelTable& table = choose_table("scalar");
  Problem p = matrix(1, 512, 64);
  p.zeros = {2, 4};
  const Data d = make_data(p);
  const auto steps = [&](Form form) { return PackedWeights::pack(p.shape, p.type, d.weight.data(), form, table)->steps(); };
  const int64_t groups = 64 / 32;
  CHECK(steps(Form::dense) == groups * 512 / 4);
  CHECK(steps(Form::window8) == groups * 512 / 8);
  CHECK(steps(Form::window8packed) == groups * 512 / 8);
  CHECK(steps(Form::window64) == groups * 512 / 8);
}

TEST(an_unknown_instruction_set_is_refused_by_name) {
  const std::string text = refusal([] { choose_table("pentium"); });
  CHECK(text.find("\"pentium\"") != std::string::npos && text.find("scalar") != std::string::npos);
  CHECK(refusal([] { form_named("window7"); }).find("found \"window7\"") != std::string::npos);
}

TEST(a_forced_instruction_set_is_the_one_that_runs) {
  for (const KernelTable* table : available_tables()) CHECK(&choose_table(table->isa) == table);
}

}  // namespace
}  // namespace openwork::test
