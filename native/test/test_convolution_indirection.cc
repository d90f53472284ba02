// A convolution's sizes, refusals, and tables of pointers against plain index arithmetic.
#include <algorithm>
#include <random>
#include <stdexcept>
#include <string>

#include "runtime/convolution_indirection.h"
#include "test/convolution_problems.h"
#include "test/guarded.h"
#include "test/harness.h"

namespace openwork {
namespace {

// The byte that a tap of an output pixel sees.
uint8_t plain_byte(const ConvGeometry& g, const std::vector<uint8_t>& x, int64_t row, int64_t tap, int64_t byte, int zero_point) {
  const int64_t pixel = static_cast<int64_t>(x.size()) / g.pixels();
  const int64_t column = row % g.out_width, line = row / g.out_width % g.out_height, image = row / g.out_width / g.out_height;
  const ConvAxis &height = g.shape.height, &width = g.shape.width;
  const int64_t h = line * height.stride - height.pad_begin + tap / width.kernel * height.dilation;
  const int64_t w = column * width.stride - width.pad_begin + tap % width.kernel * width.dilation;
  if (h < 0 || h >= g.in_height || w < 0 || w >= g.in_width) return static_cast<uint8_t>(zero_point);
  return x[static_cast<size_t>(((image * g.in_height + h) * g.in_width + w) * pixel + byte)];
}

// Every byte of every run of a block, and the read-ahead behind it.
void check_block(const Indirection& indirection, const std::vector<uint8_t>& x, const uint8_t* guarded, int64_t begin, int64_t end,
                 int zero_point, const std::string& what) {
  const ConvGeometry& g = indirection.geometry();
  const ConvRuns& runs = indirection.runs();
  const int64_t pixel = static_cast<int64_t>(x.size()) / g.pixels();
  const Guarded scratch(nullptr, static_cast<size_t>(padded_bytes(indirection.scratch_bytes(end - begin)) - kAlignment), 0);
  const PointerTable table = indirection.make(guarded, begin, end, reinterpret_cast<std::byte*>(scratch.data()));
  bool same = true;
  volatile uint8_t seen = 0;
  for (int64_t row = begin; row < end; ++row)
    for (int64_t run = 0; run < runs.count; ++run) {
      const uint8_t* p = table.x[run * table.stride + row - begin];
      for (int64_t i = 0; i < runs.bytes; ++i)
        same = same && p[i] == plain_byte(g, x, row, run * runs.taps + i / pixel, i % pixel, zero_point);
      for (int64_t i = 0; i < kReadAhead; ++i) seen = p[runs.bytes + i];
    }
  (void)seen;
  CHECK_SAY(same, what);
}

void check_geometry(const ConvGeometry& g, int element_bytes, std::mt19937& rng, const std::string& what) {
  const int zero_point = element_bytes == 1 ? static_cast<int>(rng() % 256) : 0;
  std::vector<uint8_t> x(static_cast<size_t>(g.pixels() * g.shape.channels * element_bytes));
  for (auto& byte : x) byte = static_cast<uint8_t>(rng());
  const bool merged = g.shape.width.dilation == 1 && rng() % 2;
  const Guarded guarded(x.data(), x.size(), static_cast<size_t>(kReadAhead));
  const Indirection indirection(g, make_runs(g.shape, element_bytes, merged), element_bytes, zero_point);
  check_block(indirection, x, guarded.data(), 0, g.rows(), zero_point, what);
  for (int i = 0; i < 3; ++i) {
    const int64_t begin = static_cast<int64_t>(rng()) % g.rows();
    const int64_t end = begin + 1 + static_cast<int64_t>(rng()) % (g.rows() - begin);
    check_block(indirection, x, guarded.data(), begin, end, zero_point, what + " rows " + std::to_string(begin) + " to " + std::to_string(end));
  }
}

TEST(convolution_pointers_lead_to_what_each_tap_sees) {
  for (unsigned seed = 0; seed < 1500; ++seed) {
    std::mt19937 rng(seed);
    const ConvGeometry g = test::random_geometry(rng);
    check_geometry(g, 1 << rng() % 3, rng, "seed " + std::to_string(seed) + ": " + test::describe(g));
  }
}

TEST(convolution_merges_rows_of_taps_that_lie_side_by_side) {
  const ConvShape first{64, 3, 1, {7, 2, 1, 3, 3}, {7, 2, 1, 3, 3}};
  CHECK(merges_taps(first, Type::i8, Form::dense));
  const ConvRuns runs = make_runs(first, 1, true);
  CHECK(runs.count == 7 && runs.taps == 7 && runs.bytes == 21);
  CHECK(weight_shape(first, true).runs() == 7 && weight_shape(first, true).run_elements() == 21);
  ConvShape other = first;
  other.width.dilation = 2;
  CHECK(!merges_taps(other, Type::i8, Form::dense));
  CHECK(make_runs(other, 2, false).count == 49 && make_runs(other, 2, false).bytes == 6);
  const ConvShape grouped{64, 48, 2, {}, {5, 1, 1, 2, 2}};
  CHECK(merges_taps(grouped, Type::i8, Form::window64) && !merges_taps(grouped, Type::i8, Form::dense));
  const ConvShape deep{64, 1024, 2, {}, {5, 1, 1, 2, 2}};
  CHECK(!merges_taps(deep, Type::i8, Form::window64));
}

TEST(convolution_output_sizes_are_those_of_onnx) {
  const ConvShape first{64, 3, 1, {7, 2, 1, 3, 3}, {7, 2, 1, 3, 3}};
  const ConvGeometry g = make_geometry(first, 2, 224, 225);
  CHECK(g.out_height == 112 && g.out_width == 113 && g.rows() == 2 * 112 * 113);
  const ConvShape dilated{1, 1, 1, {}, {3, 3, 4, 1, 0}};
  CHECK(make_geometry(dilated, 1, 1, 9).out_width == 1);
  CHECK(make_geometry(dilated, 1, 1, 11).out_width == 2);
}

std::string refusal(const ConvShape& shape, int64_t batch, int64_t height, int64_t width) {
  try {
    make_geometry(shape, batch, height, width);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "";
}

TEST(convolution_refuses_sizes_that_no_convolution_has) {
  const ConvShape plain{4, 4, 1, {3, 1, 1, 0, 0}, {3, 1, 1, 0, 0}};
  CHECK(refusal(plain, 1, 2, 3) ==
        "Expected a kernel that fits into the padded input, found one that reaches over 3 pixels of a padded height of 2; use a "
        "smaller kernel or dilation, or a larger image.");
  ConvShape s = plain;
  s.width.stride = 0;
  CHECK(refusal(s, 1, 8, 8) == "Expected the convolution's stride along the width from 1 to 2^30, found 0.");
  s = plain;
  s.height.pad_end = -1;
  CHECK(refusal(s, 1, 8, 8) == "Expected the convolution's padding at the end of the height from 0 to 2^30, found -1.");
  s = plain;
  s.groups = 3;
  CHECK(refusal(s, 1, 8, 8) ==
        "Expected a number of groups that divides the input and the output channels, found 3 groups of 4 input and 4 output "
        "channels.");
  s = plain;
  s.height.kernel = int64_t{1} << 40;
  CHECK(refusal(s, 1, 8, 8) == "Expected the convolution's kernel height from 1 to 2^30, found 1099511627776.");
  CHECK(refusal(plain, 0, 8, 8) == "Expected the convolution's batch from 1 to 2^30, found 0.");
  const int64_t huge = int64_t{1} << 30;
  CHECK(refusal(plain, huge, huge, huge) ==
        "Expected at most 2^40 elements in the convolution's input, found [1073741824, 1073741824, 1073741824, 4].");
  s = plain;
  s.n = huge;
  CHECK(refusal(s, 1, 64, 64).find("in the convolution's output, found [1, 62, 62, 1073741824].") != std::string::npos);
}

}  // namespace
}  // namespace openwork
