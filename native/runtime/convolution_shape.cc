#include "runtime/convolution_shape.h"

#include <stdexcept>

namespace openwork {

namespace {

// Products of two of these, and sums of a few such products, fit 64 bits.
constexpr int64_t kMostSize = int64_t{1} << 30;
// Bytes of a grouped convolution's input pixel up to which rows of taps run together.
constexpr int64_t kMostMergedPixel = 512;
// The bound of a program's values (program.cc).
constexpr int64_t kMostElements = int64_t{1} << 40;

void expect(bool holds, const std::string& sentence) {
  if (!holds) throw std::invalid_argument(sentence);
}

void expect_size(int64_t size, int64_t least, const std::string& role) {
  expect(size >= least && size <= kMostSize, "Expected the convolution's " + role + " from " + std::to_string(least) + " to 2^30, found " +
                                                 std::to_string(size) + ".");
}

void check_axis(const ConvAxis& axis, const std::string& name) {
  expect_size(axis.kernel, 1, "kernel " + name);
  expect_size(axis.stride, 1, "stride along the " + name);
  expect_size(axis.dilation, 1, "dilation along the " + name);
  expect_size(axis.pad_begin, 0, "padding at the begin of the " + name);
  expect_size(axis.pad_end, 0, "padding at the end of the " + name);
}

void check_fit(const ConvAxis& axis, int64_t size, const std::string& name) {
  const int64_t padded = size + axis.pad_begin + axis.pad_end;
  expect(axis.reach() <= padded, "Expected a kernel that fits into the padded input, found one that reaches over " +
                                     std::to_string(axis.reach()) + " pixels of a padded " + name + " of " +
                                     std::to_string(padded) + "; use a smaller kernel or dilation, or a larger image.");
}

void check_elements(int64_t batch, int64_t height, int64_t width, int64_t channels, const std::string& role) {
  int64_t count = batch;
  for (const int64_t size : {height, width, channels})
    expect(!__builtin_mul_overflow(count, size, &count) && count <= kMostElements,
           "Expected at most 2^40 elements in the convolution's " + role + ", found [" + std::to_string(batch) + ", " +
               std::to_string(height) + ", " + std::to_string(width) + ", " + std::to_string(channels) + "].");
}

}  // namespace

ConvShape conv_shape(const WeightShape& w, const ConvAttributes& a) {
  return {w.n,
          w.groups * w.channels,
          w.groups,
          {w.kernel_h, a.strides[0], a.dilations[0], a.pads[0], a.pads[2]},
          {w.kernel_w, a.strides[1], a.dilations[1], a.pads[1], a.pads[3]}};
}

void check_shape(const ConvShape& shape) {
  expect_size(shape.n, 1, "number of output channels");
  expect_size(shape.channels, 1, "number of input channels");
  expect_size(shape.groups, 1, "number of groups");
  expect(shape.n % shape.groups == 0 && shape.channels % shape.groups == 0,
         "Expected a number of groups that divides the input and the output channels, found " + std::to_string(shape.groups) +
             " groups of " + std::to_string(shape.channels) + " input and " + std::to_string(shape.n) + " output channels.");
  check_axis(shape.height, "height");
  check_axis(shape.width, "width");
}

ConvGeometry make_geometry(const ConvShape& shape, int64_t batch, int64_t height, int64_t width) {
  check_shape(shape);
  expect_size(batch, 1, "batch");
  expect_size(height, 1, "input height");
  expect_size(width, 1, "input width");
  check_fit(shape.height, height, "height");
  check_fit(shape.width, width, "width");
  const ConvGeometry g{shape, batch, height, width, shape.height.output(height), shape.width.output(width)};
  check_elements(batch, height, width, shape.channels, "input");
  check_elements(batch, g.out_height, g.out_width, shape.n, "output");
  return g;
}

ConvGeometry flattened(const ConvGeometry& g) {
  const auto alone = [](const ConvAxis& a) { return a.kernel == 1 && a.stride == 1 && a.pad_begin == 0 && a.pad_end == 0; };
  if (!alone(g.shape.height) || !alone(g.shape.width)) return g;
  return {g.shape, 1, 1, g.pixels(), 1, g.rows()};
}

ConvRuns make_runs(const ConvShape& shape, int element_bytes, bool merged) {
  const int64_t pixel = shape.channels * element_bytes;
  if (merged) return {true, shape.height.kernel, shape.width.kernel, shape.width.kernel * pixel};
  return {false, shape.taps(), 1, pixel};
}

WeightShape weight_shape(const ConvShape& shape, bool merged) {
  return {shape.n, shape.channels / shape.groups, shape.height.kernel, shape.width.kernel, shape.groups, merged};
}

bool merges_taps(const ConvShape& shape, Type type, Form form) {
  const bool side_by_side = shape.width.kernel > 1 && shape.width.dilation == 1;
  if (shape.groups == 1) return side_by_side;
  return side_by_side && form_info(form).shuffled() && shape.channels * element_bytes(type) <= kMostMergedPixel;
}

}  // namespace openwork
