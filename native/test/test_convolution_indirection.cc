// A convolution's sizes, refusals, and tables of pointers against plain index arithmetic.
#include <algorithm>
#include <random>
#include <stdexcept>
#include <string>

#include "runtime/convolution/indirection.h"
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

struct Guards {
  std::vector<uint8_t> x;
  Guarded guarded;
};

// Every byte of every run of a block, and the read-ahead behind it.
void check_block(const Indirection& indirection, const Guards& input, const ConvColumns& rows, int zero_point, const std::string& what) {
  const ConvGeometry& g = indirection.geometry();
  const int64_t pixel = indirection.pixel_bytes(), taps = indirection.run_bytes() / pixel;
  const Guarded scratch(nullptr, static_cast<size_t>(indirection.scratch_bytes(rows.end - rows.begin)), 0);
  const PointerTable table =
      indirection.make(input.guarded.data(), rows.begin, rows.end, reinterpret_cast<std::byte*>(scratch.data()));
  bool same = true, spaced = true;
  volatile uint8_t seen = 0;
  for (int64_t row = rows.begin; row < rows.end; ++row)
    for (int64_t run = 0; run < indirection.runs(); ++run) {
      const uint8_t* p = table.x[run * table.stride + row - rows.begin];
      for (int64_t i = 0; i < indirection.run_bytes(); ++i)
        same = same && p[i] == plain_byte(g, input.x, row, run * taps + i / pixel, i % pixel, zero_point);
      for (int64_t i = 0; i < kReadAhead; ++i) seen = p[indirection.run_bytes() + i];
      spaced = spaced && (table.row_bytes == 0 || p == table.x[run * table.stride] + (row - rows.begin) * table.row_bytes);
    }
  (void)seen;
  CHECK_SAY(same && spaced, what);
}

void check_run(const ConvGeometry& g, ConvRun run, int element_bytes, std::mt19937& rng, const std::string& what) {
  const int zero_point = element_bytes == 1 ? static_cast<int>(rng() % 256) : 0;
  std::vector<uint8_t> x(static_cast<size_t>(g.pixels() * g.shape.channels * element_bytes));
  for (auto& byte : x) byte = static_cast<uint8_t>(rng());
  const Guards input{x, Guarded(x.data(), x.size(), read_ahead(1))};
  const Indirection indirection(g, run, element_bytes, zero_point);
  check_block(indirection, input, {0, g.rows()}, zero_point, what);
  for (int i = 0; i < 3; ++i) {
    const int64_t begin = test::draw(rng, 0, g.rows() - 1), end = test::draw(rng, begin + 1, g.rows());
    check_block(indirection, input, {begin, end}, zero_point, what + " rows " + std::to_string(begin) + " to " + std::to_string(end));
  }
}

TEST(convolution_pointers_lead_to_what_each_tap_sees) {
  for (unsigned seed = 0; seed < 1000; ++seed) {
    std::mt19937 rng(seed);
    const ConvGeometry g = test::random_geometry(rng);
    for (const ConvRun run : {ConvRun::tap, ConvRun::row, ConvRun::patch}) {
      if (run != ConvRun::tap && g.shape.width.dilation != 1) continue;
      check_run(g, run, 1 << rng() % 3, rng, run_name(run) + (" seed " + std::to_string(seed)) + ": " + test::describe(g));
    }
  }
}

TEST(convolution_chooses_runs_by_what_lies_side_by_side) {
  const ConvShape first{64, 3, 1, {7, 2, 1, 3, 3}, {7, 2, 1, 3, 3}};
  CHECK(choose_run(first, Type::i8, Form::dense) == ConvRun::patch);
  CHECK(choose_run(first, Type::f32, Form::dense) == ConvRun::row);
  CHECK(weight_shape(first, ConvRun::patch).runs() == 1 && weight_shape(first, ConvRun::patch).run_elements() == 147);
  CHECK(weight_shape(first, ConvRun::row).runs() == 7 && weight_shape(first, ConvRun::row).run_elements() == 21);
  ConvShape other = first;
  other.width.dilation = 2;
  CHECK(choose_run(other, Type::i8, Form::dense) == ConvRun::tap && weight_shape(other, ConvRun::tap).runs() == 49);
  const ConvShape four_channels{64, 4, 1, {7, 2, 1, 3, 3}, {7, 2, 1, 3, 3}};
  CHECK(choose_run(four_channels, Type::i8, Form::dense) == ConvRun::row);
  const ConvShape one_axis{64, 3, 1, {}, {7, 2, 1, 3, 3}};
  CHECK(choose_run(one_axis, Type::i8, Form::dense) == ConvRun::row);
  const ConvShape grouped{64, 48, 2, {}, {5, 1, 1, 2, 2}};
  CHECK(choose_run(grouped, Type::i8, Form::window64) == ConvRun::row && choose_run(grouped, Type::i8, Form::dense) == ConvRun::tap);
  const ConvShape deep{64, 1024, 2, {}, {5, 1, 1, 2, 2}};
  CHECK(choose_run(deep, Type::i8, Form::window64) == ConvRun::tap);
  for (const ConvRun run : {ConvRun::tap, ConvRun::row, ConvRun::patch})
    CHECK(run_named(run_name(run)) == run && run_of(weight_shape(first, run)) == run);
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
