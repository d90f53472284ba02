// Depthwise convolutions of every instruction set of this machine against the plain loops of docs/arithmetic.md.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "test/harness.h"
#include "test/problem.h"
#include "test/tables.h"

namespace openwork::test {
namespace {

Problem depthwise(int64_t rows, int64_t channels, int64_t kernel_h, int64_t kernel_w) {
  Problem p;
  p.rows = rows;
  p.shape = {channels, 1, kernel_h, kernel_w, channels};
  return p;
}

// At most taps + 1 roundings of half an ulp, of numbers no larger than the sum of the magnitudes.
bool close(const Problem& p, const std::vector<float>& found, const std::vector<double>& sums, const std::vector<double>& magnitudes) {
  for (size_t i = 0; i < found.size(); ++i)
    if (!(std::fabs(found[i] - sums[i]) <= 0x1p-24 * static_cast<double>(p.shape.taps() + 1) * magnitudes[i])) return false;
  return true;
}

void check_bf16(Problem p, Data d, const PackedWeights& w) {
  p.activation = Activation::none;
  p.quantized = p.residual = false;
  d.bias.assign(d.bias.size(), 0.0f);
  CHECK_SAY(close(p, run_kernel(p, d, w, p.rows, 1), plain_sums(p, d), plain_magnitudes(p, d)), describe(p, w));
}

void check_data(const Problem& p, const Data& d) {
  const auto expected = plain_outputs(p, d, plain_sums(p, d));
  for (const KernelTable* table : own_tables()) {
    const auto w = PackedWeights::pack(p.shape, p.type, d.weight.data(), Form::depthwise, *table);
    if (p.type == Type::bf16) {
      check_bf16(p, d, *w);
      continue;
    }
    CHECK_SAY(same_bits(run_kernel(p, d, *w, p.rows, w->groups()), expected), describe(p, *w));
    CHECK_SAY(same_bits(run_kernel(p, d, *w, 5, 1), expected), describe(p, *w) + " in blocks of 5 rows");
  }
}

void check_problem(const Problem& p) { check_data(p, make_data(p)); }

// An image of `height` x `width` output pixels: the pixels of neighbours are the same but for one, and pixel 0 stands for what
// lies outside, as at an image's edges.
struct Image {
  int64_t height, width, stride, dilation, pad;
};

Data image_data(const Problem& p, const Image& image) {
  Data d = make_data(p);
  const WeightShape& s = p.shape;
  const int64_t wide = (image.width - 1) * image.stride + (s.kernel_w - 1) * image.dilation + 1 - 2 * image.pad;
  const int64_t high = (image.height - 1) * image.stride + (s.kernel_h - 1) * image.dilation + 1 - 2 * image.pad;
  const size_t drawn = d.x.size();
  d.pixels = std::max<int64_t>(1, wide) * std::max<int64_t>(1, high) + 1;
  d.x.resize(static_cast<size_t>(d.pixels * s.pixel() * element_bytes(p.type)));
  for (size_t i = drawn; i < d.x.size(); ++i) d.x[i] = d.x[i - drawn];
  d.pixel.clear();
  for (int64_t t = 0; t < s.taps(); ++t)
    for (int64_t r = 0; r < p.rows; ++r) {
      const int64_t y = r / image.width * image.stride + t / s.kernel_w * image.dilation - image.pad;
      const int64_t x = r % image.width * image.stride + t % s.kernel_w * image.dilation - image.pad;
      d.pixel.push_back(y < 0 || x < 0 || y >= high || x >= wide ? 0 : 1 + y * wide + x);
    }
  return d;
}

Problem random_problem(unsigned seed) {
  std::mt19937 rng(seed);
  const int64_t channels[] = {1, 3, 15, 16, 17, 31, 32, 33, 47, 64, 65, 96};
  Problem p = depthwise(1 + rng() % 40, channels[rng() % 12], 1 + rng() % 5, 1 + rng() % 5);
  const Type types[] = {Type::i8, Type::i8, Type::bf16, Type::f32};
  p.seed = seed;
  p.type = types[rng() % 4];
  p.zeros.fraction = rng() % 3 ? 0.0 : 0.5;
  p.quantized = rng() % 2;
  p.residual = rng() % 3 == 0;
  p.activation = rng() % 2 ? Activation::relu : Activation::none;
  const int zero_points[] = {0, 255, 128, 7};
  if (p.type == Type::i8) p.zero_point = zero_points[rng() % 4];
  p.extreme = rng() % 8 == 0;
  p.scale = 1e-3f;
  return p;
}

TEST(depthwise_random_problems) {
  for (unsigned seed = 0; seed < 600; ++seed) check_problem(random_problem(seed));
}

TEST(depthwise_shares_the_steps_of_neighbouring_pixels) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 rng(seed);
    const int64_t size = 1 + 2 * static_cast<int64_t>(rng() % 4);
    const Image image{1 + static_cast<int64_t>(rng() % 7), 1 + static_cast<int64_t>(rng() % 20), rng() % 3 ? 1 : 2, rng() % 4 ? 1 : 2,
                      rng() % 2 ? size / 2 : 0};
    Problem p = depthwise(image.height * image.width, 1 + static_cast<int64_t>(rng() % 70), rng() % 3 ? size : 2, size);
    p.seed = seed;
    const Type types[] = {Type::i8, Type::i8, Type::f32};
    p.type = types[rng() % 3];
    if (p.type == Type::i8) p.zero_point = static_cast<int>(rng() % 256);
    p.quantized = rng() % 2;
    p.scale = 1e-3f;
    check_data(p, image_data(p, image));
  }
}

TEST(depthwise_refuses_groups_of_more_channels) {
  const std::vector<int8_t> weight(2 * 9 * 64);
  const auto& table = *available_tables().back();
  const auto message = [&](const WeightShape& shape) {
    try {
      PackedWeights::pack(shape, Type::i8, weight.data(), Form::depthwise, table);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(message({64, 1, 3, 3, 64}).empty());
  CHECK(message({64, 2, 3, 3, 64}) ==
        "The form depthwise runs convolutions whose groups have one input and one output channel each, tap by tap; found 64 "
        "output channels in 64 groups of 2 input channels.");
  CHECK(!message({64, 1, 3, 3, 32}).empty());
  CHECK(!message({64, 1, 3, 3, 64, true}).empty());
}

}  // namespace
}  // namespace openwork::test
