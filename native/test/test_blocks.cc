// Products with rows in the lanes, of every instruction set of this machine, against the plain loops of docs/arithmetic.md.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "runtime/linear/layer.h"
#include "test/allocations.h"
#include "test/harness.h"
#include "test/problem.h"
#include "test/tables.h"

namespace openwork::test {
namespace {

constexpr Form kBlockForms[] = {Form::blocks1, Form::blocks2, Form::blocks4, Form::blocks8};

// The sums of BF16 are rounded after each product: at most k + 1 roundings of half an ulp, of numbers no larger than the sum of
// the magnitudes.
bool close(const Problem& p, const std::vector<float>& found, const std::vector<double>& sums, const std::vector<double>& magnitudes) {
  for (size_t i = 0; i < found.size(); ++i)
    if (!(std::fabs(found[i] - sums[i]) <= 0x1p-24 * static_cast<double>(p.shape.k() + 1) * magnitudes[i])) return false;
  return true;
}

void check_bf16(const Problem& p, const Data& d, const PackedWeights& w) {
  Problem plain = p;
  plain.activation = Activation::none;
  plain.quantized = plain.residual = false;
  Data unit = d;
  unit.scale.assign(unit.scale.size(), 1.0f);
  unit.bias.assign(unit.bias.size(), 0.0f);
  CHECK_SAY(close(plain, run_kernel(plain, unit, w, p.rows, 1), plain_sums(plain, unit), plain_magnitudes(plain, unit)), describe(p, w));
}

void check_form(const Problem& p, const Data& d, Form form, const KernelTable& table) {
  if (!table.kernel(p.type, form)) return;
  const auto w = PackedWeights::pack(p.shape, p.type, d.weight.data(), form, table);
  if (p.type == Type::bf16) return check_bf16(p, d, *w);
  const auto expected = plain_outputs(p, d, plain_sums(p, d));
  CHECK_SAY(same_bits(run_kernel(p, d, *w, p.rows, w->groups()), expected), describe(p, *w));
  CHECK_SAY(same_bits(run_kernel(p, d, *w, 21, 1), expected), describe(p, *w) + " in blocks of 21 rows");
}

void check_problem(const Problem& p) {
  const Data d = make_data(p);
  for (const KernelTable* table : own_tables())
    for (const Form form : kBlockForms) check_form(p, d, form, *table);
}

template <class T, size_t n>
T one_of(const T (&from)[n], std::mt19937& rng) {
  return from[rng() % n];
}

Zeros random_zeros(std::mt19937& rng) {
  const Zeros all[] = {{0, 0, 1, 1, 0.9},  {0, 0, 4, 16, 0.85}, {0, 0, 1, 4, 0.8},  {0, 0, 4, 4, 0.7},
                       {0, 0, 8, 16, 0.9}, {0, 0, 1, 16, 0.6},  {0, 0, 1, 1, 0.0}, {0, 0, 1, 1, 1.0}};
  return one_of(all, rng);
}

WeightShape random_shape(std::mt19937& rng) {
  const int64_t n[] = {1, 3, 4, 16, 17, 31, 32, 33, 48, 70}, k[] = {1, 2, 3, 4, 5, 15, 16, 31, 63, 64, 65, 100, 129, 200};
  WeightShape s{one_of(n, rng), one_of(k, rng)};
  if (rng() % 3) return s;
  s.kernel_h = 1 + rng() % 3;
  s.kernel_w = 1 + rng() % 3;
  s.channels = 1 + s.channels % 40;
  s.groups = rng() % 2 ? 1 : 1 + rng() % 4;
  s.n *= s.groups;
  s.merged = rng() % 2;
  return s;
}

Problem random_problem(unsigned seed) {
  std::mt19937 rng(seed);
  const int64_t rows[] = {1, 2, 15, 16, 17, 31, 33, 49, 64, 65, 130};
  Problem p;
  p.seed = seed;
  p.rows = one_of(rows, rng);
  p.shape = random_shape(rng);
  const Type types[] = {Type::i8, Type::i8, Type::bf16, Type::f32};
  p.type = one_of(types, rng);
  p.zeros = random_zeros(rng);
  p.quantized = rng() % 2;
  p.residual = rng() % 3 == 0;
  const Activation activations[] = {Activation::none, Activation::relu, Activation::gelu};
  p.activation = one_of(activations, rng);
  const int zero_points[] = {0, 255, 128, 7};
  if (p.type == Type::i8) p.zero_point = one_of(zero_points, rng);
  p.extreme = rng() % 8 == 0;
  return p;
}

TEST(blocks_random_problems) {
  for (unsigned seed = 0; seed < 400; ++seed) check_problem(random_problem(seed));
}

TEST(blocks_extremes) {
  for (const int zero_point : {0, 255}) {
    Problem p = matrix(37, 4608, 40);
    p.zeros = {0, 0, 4, 16, 0.5};
    p.extreme = true;
    p.zero_point = zero_point;
    p.scale = 1e-7f;
    check_problem(p);
  }
}

// Every quad of weights that is zero for a whole block row is left out, and no other.
TEST(blocks_leave_zero_quads_out) {
  Problem p = matrix(1, 128, 64);
  p.zeros = {0, 0, 4, 16, 0.75};
  p.seed = 5;
  const Data d = make_data(p);
  int64_t quads = 0;
  for (int64_t c = 0; c < 64; c += 4)
    for (int64_t i = 0; i < 128; i += 4) {
      bool any = false;
      for (int64_t at = 0; at < 16; ++at) any = any || d.weight[static_cast<size_t>((c + at / 4) * 128 + i + at % 4)] != 0;
      quads += any;
    }
  const auto w = PackedWeights::pack(p.shape, p.type, d.weight.data(), Form::blocks4, *available_tables().back());
  CHECK_SAY(quads > 0 && w->steps() == quads, std::to_string(w->steps()) + " steps for " + std::to_string(quads) + " quads");
  CHECK(w->bytes() == 16 * quads);
}

// Row blocks are whole vectors, cover each row once, and leave no thread without one where there are vectors enough.
TEST(blocks_are_cut_at_whole_vectors) {
  for (const int64_t rows : {1, 15, 16, 17, 49, 196, 784, 3137})
    for (const int threads : {1, 2, 3, 8}) {
      const LinearPartition p = partition_linear({rows, 512, 8, 4096, 1, kStripLanes}, threads);
      const std::string what = std::to_string(rows) + " rows, " + std::to_string(threads) + " threads";
      std::vector<int> seen(static_cast<size_t>(rows * 8), 0);
      for (int64_t unit = 0; unit < p.units(); ++unit) {
        const Block b = p.block(unit);
        CHECK_SAY(b.row_begin % kStripLanes == 0 && b.row_begin < b.row_end && b.row_end - b.row_begin <= p.most_rows(), what);
        for (int64_t r = b.row_begin; r < b.row_end; ++r)
          for (int64_t g = b.group_begin; g < b.group_end; ++g) ++seen[static_cast<size_t>(r * 8 + g)];
      }
      CHECK_SAY(std::count(seen.begin(), seen.end(), 1) == rows * 8, what);
      CHECK_SAY(p.units() >= std::min<int64_t>(threads, 8), what);
    }
}

// No step may wait for the allocator's locks, or fail for want of memory, halfway through a run.
TEST(blocks_allocate_nothing_while_they_run) {
  Problem p = matrix(70, 200, 64);
  p.zeros = {0, 0, 4, 16, 0.75};
  const Data d = make_data(p);
  LinearEpilogue epilogue;
  epilogue.scale.assign(64, 1e-3f);
  for (const Form form : kBlockForms) {
    if (!available_tables().front()->kernel(p.type, form)) continue;
    const LinearLayer layer(PackedWeights::pack(p.shape, p.type, d.weight.data(), form, *available_tables().front()), epilogue);
    AlignedBuffer x(static_cast<int64_t>(d.x.size())), y(70 * 64 * 4);
    std::memcpy(x.data(), d.x.data(), d.x.size());
    const ThreadScratch scratch(1, layer.scratch_bytes(70));
    int64_t made = -1;
    std::thread([&] {
      const int64_t before = allocations();
      layer.run({x.data(), nullptr, y.data()}, {0, 70, 0, layer.weights().groups()}, scratch.of(0));
      made = allocations() - before;
    }).join();
    CHECK_SAY(made == 0, std::to_string(made) + " allocations");
  }
  const int64_t before = allocations();
  const AlignedBuffer buffer(1);
  CHECK(allocations() > before || !kAllocationsAreCounted);
}

}  // namespace
}  // namespace openwork::test
