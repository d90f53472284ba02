// Activations and tables of bytes on every instruction set against plain loops written from docs/arithmetic.md: the same bits;
// and those against the functions that they stand for.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "runtime/epilogue.h"
#include "test/guarded.h"
#include "test/harness.h"
#include "test/plain_activation.h"
#include "test/tables.h"

namespace openwork {

using test::plain_activation;

namespace {

// In one range and cut in two.
template <class Args>
void run_everywhere(const Args& args, void (*OperatorTable::*op)(const Args&, int64_t, int64_t), const std::function<bool()>& same,
                    const std::string& what) {
  const int64_t units = (args.count + kElementBlock - 1) / kElementBlock;
  for (const KernelTable* table : test::own_tables()) {
    (table->*op)(args, 0, units);
    CHECK_SAY(same(), what + " on " + table->isa);
    (table->*op)(args, units / 2, units);
    (table->*op)(args, 0, units / 2);
    CHECK_SAY(same(), what + " in two parts on " + table->isa);
  }
}

std::vector<float> some_numbers(size_t count) {
  std::mt19937 rng(27);
  std::normal_distribution<float> normal(0.0f, 6.0f);
  std::vector<float> x(count);
  for (auto& v : x) v = normal(rng);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  // Not -infinity: hard_swish of it is no number.
  const float some[] = {0.0f, -0.0f, kInfinity, -3e38f, 1e-40f, -1e-40f, 1e30f, -1e30f, 8.0f, -8.5f, 17.34f, -18.0f};
  std::copy(std::begin(some), std::end(some), x.begin() + 5);
  return x;
}

TEST(activations_equal_plain_loops) {
  const std::vector<float> x = some_numbers(4100);
  const Guarded gx(x.data(), x.size() * 4, 0), y(nullptr, x.size() * 4, 0);
  for (const char* name : {"none", "relu", "relu6", "leaky_relu", "hard_sigmoid", "hard_swish", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"}) {
    const ElementArgs args{reinterpret_cast<const float*>(gx.data()), static_cast<int64_t>(x.size()), y.data(), {}, activation_named(name)};
    std::vector<float> expected;
    for (const float v : x) expected.push_back(plain_activation(args.activation, v));
    run_everywhere(args, &OperatorTable::activate, [&] { return std::memcmp(y.data(), expected.data(), x.size() * 4) == 0; }, name);
  }
}

TEST(activations_keep_nan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* name : {"leaky_relu", "hard_sigmoid", "hard_swish", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"})
    for (const KernelTable* table : test::own_tables()) {
      float y = 0.0f;
      table->activate({&nan, 1, &y, {}, activation_named(name)}, 0, 1);
      CHECK_SAY(std::isnan(y), std::string(name) + " on " + table->isa);
    }
}

TEST(lookup_equals_plain_loops) {
  for (const size_t count : {size_t{1}, size_t{63}, size_t{64}, size_t{2049}, size_t{6000}}) {
    std::mt19937 rng(static_cast<unsigned>(count));
    std::vector<uint8_t> x(count), table(256), expected;
    for (auto& v : x) v = static_cast<uint8_t>(rng());
    for (auto& v : table) v = static_cast<uint8_t>(rng());
    for (const uint8_t v : x) expected.push_back(table[v]);
    const Guarded gx(x.data(), count, 0), gtable(table.data(), 256, 0), y(nullptr, count, 0);
    const LookupArgs args{gx.data(), gtable.data(), static_cast<int64_t>(count), y.data()};
    run_everywhere(args, &OperatorTable::lookup, [&] { return std::memcmp(y.data(), expected.data(), count) == 0; },
                   "lookup " + std::to_string(count));
  }
}

// The bounds that docs/arithmetic.md states.
TEST(activations_stay_within_their_stated_errors) {
  for (int i = -400000; i <= 400000; ++i) {
    const float v = static_cast<float>(i) / 16000.0f;
    const double x = v, sigmoid = 1.0 / (1.0 + std::exp(-x));
    CHECK_SAY(std::fabs(plain_activation(Activation::silu, v) - x * sigmoid) < 1e-6, "silu " + std::to_string(v));
    CHECK_SAY(std::fabs(plain_activation(Activation::sigmoid, v) - sigmoid) < 5.1e-7, "sigmoid " + std::to_string(v));
    CHECK_SAY(std::fabs(plain_activation(Activation::tanh, v) - std::tanh(x)) < 1e-6, "tanh " + std::to_string(v));
  }
}

}  // namespace
}  // namespace openwork
