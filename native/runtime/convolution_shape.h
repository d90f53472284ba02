// What a convolution is given and what follows from it: sizes, and how its input is cut into runs. NHWC.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/packing.h"

namespace openwork {

// One axis of the image.
struct ConvAxis {
  int64_t kernel = 1, stride = 1, dilation = 1;
  int64_t pad_begin = 0, pad_end = 0;

  // Input positions from the first tap to the last.
  int64_t reach() const { return (kernel - 1) * dilation + 1; }
  // Positive only where the kernel fits into the padded input.
  int64_t output(int64_t size) const { return (size + pad_begin + pad_end - reach()) / stride + 1; }
  int64_t first_input(int64_t out) const { return out * stride - pad_begin; }
};

// A layer, whatever the image's size. A 1-D convolution leaves `height` as it is.
struct ConvShape {
  int64_t n = 1;         // output channels
  int64_t channels = 1;  // input channels
  int64_t groups = 1;
  ConvAxis height, width;

  int64_t taps() const { return height.kernel * width.kernel; }
};

// What a convolution is given beside its weights, in the order of ONNX.
struct ConvAttributes {
  std::array<int64_t, 2> strides{1, 1}, dilations{1, 1};  // height, width
  std::array<int64_t, 4> pads{};                          // top, left, bottom, right
};
ConvShape conv_shape(const WeightShape& weights, const ConvAttributes& attributes);

// Throws std::invalid_argument, saying what was expected and found, for sizes that no convolution has.
void check_shape(const ConvShape& shape);

// A layer on images of one size.
struct ConvGeometry {
  ConvShape shape;
  int64_t batch = 1;
  int64_t in_height = 1, in_width = 1;
  int64_t out_height = 1, out_width = 1;

  // Output pixels of the whole batch: the rows of the matrix product.
  int64_t rows() const { return batch * out_height * out_width; }
  int64_t pixels() const { return batch * in_height * in_width; }
};

// Throws std::invalid_argument for a kernel that does not fit into the padded input, and for values that are too large to
// address.
ConvGeometry make_geometry(const ConvShape& shape, int64_t batch, int64_t height, int64_t width);
// The same product with all pixels in one row, where each output pixel sees just its own input pixel: as it is elsewhere.
ConvGeometry flattened(const ConvGeometry& geometry);

// How the taps of an output pixel are cut into runs of contiguous input: one run for each tap, or one for each row of taps,
// whose pixels lie side by side in NHWC.
struct ConvRuns {
  bool merged = false;
  int64_t count = 1;
  int64_t taps = 1;  // side by side in one run
  int64_t bytes = 1;
};

ConvRuns make_runs(const ConvShape& shape, int element_bytes, bool merged);
// The form in which weights [n, kernel height, kernel width, channels / groups] are packed for these runs.
WeightShape weight_shape(const ConvShape& shape, bool merged);
// Whether a form is better packed for whole rows of taps, which are fewer runs with less padding inside of them. The dense form
// holds the taps of a grouped convolution one by one, and the copies at the border cost more than that where all groups'
// channels are many and one output sees few of them.
bool merges_taps(const ConvShape& shape, Type type, Form form);

}  // namespace openwork
