#include "runtime/convolution/shape.h"

#include <stdexcept>

namespace openwork {

namespace {

// Products of two of these, and sums of a few such products, fit 64 bits.
constexpr int64_t kMostSize = int64_t{1} << 30;
constexpr const char* kRunNames[] = {"tap", "row", "patch"};

// Bytes of a row of taps up to which all taps are worth copying, if the row does not fill the lanes of its steps.
constexpr int64_t kMostCopiedRow = 32, kLaneBytes = 4;
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
  if (!g.shape.height.plain() || !g.shape.width.plain()) return g;
  return {g.shape, 1, 1, g.pixels(), 1, g.rows()};
}

const char* run_name(ConvRun run) { return kRunNames[static_cast<int>(run)]; }

ConvRun run_named(const std::string& name) {
  for (int i = 0; i < 3; ++i)
    if (name == kRunNames[i]) return static_cast<ConvRun>(i);
  throw std::invalid_argument("Expected runs of a convolution out of tap, row and patch, found \"" + name + "\".");
}

ConvRun run_of(const WeightShape& weights) {
  return weights.copied ? ConvRun::patch : weights.merged ? ConvRun::row : ConvRun::tap;
}

WeightShape weight_shape(const ConvShape& shape, ConvRun run) {
  return {shape.n,           shape.channels / shape.groups, shape.height.kernel, shape.width.kernel, shape.groups,
          run == ConvRun::row, run == ConvRun::patch};
}

ConvRun choose_run(const ConvShape& shape, Type type, Form form) {
  if (shape.width.dilation != 1 || shape.taps() == 1) return ConvRun::tap;
  const int64_t pixel = shape.channels * element_bytes(type);
  if (shape.groups > 1) return form_info(form).shuffled() && pixel <= kMostMergedPixel ? ConvRun::row : ConvRun::tap;
  const int64_t row = shape.width.kernel * pixel;
  return shape.height.kernel > 1 && row <= kMostCopiedRow && row % kLaneBytes != 0 ? ConvRun::patch : ConvRun::row;
}

}  // namespace openwork
