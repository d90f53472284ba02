// What a convolution is given and what follows from it: sizes, and how its input is cut into runs. NHWC.
#pragma once

#include <algorithm>
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
  // Whether each output position sees just its own input.
  bool plain() const { return kernel == 1 && stride == 1 && pad_begin == 0 && pad_end == 0; }
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

// Output columns, [begin, end).
struct ConvColumns {
  int64_t begin, end;

  // The part that lies in `whole`; where none does, an empty one of its bounds.
  ConvColumns within(const ConvColumns& whole) const {
    const int64_t first = std::clamp(begin, whole.begin, whole.end);
    return {first, std::clamp(end, first, whole.end)};
  }
};

// Output pixels side by side in one row of one image.
struct ConvLine {
  int64_t image, row;
  ConvColumns columns;
  int64_t at;  // of the first one in its block
};

// Calls f(line) for each line of a block of output pixels.
template <class F>
void for_each_line(const ConvGeometry& g, int64_t row_begin, int64_t row_end, const F& f) {
  for (int64_t row = row_begin; row < row_end;) {
    const int64_t line = row / g.out_width, column = row % g.out_width;
    const int64_t end = std::min(g.out_width, column + row_end - row);
    f(ConvLine{line / g.out_height, line % g.out_height, {column, end}, row - row_begin});
    row += end - column;
  }
}

// Throws std::invalid_argument for a kernel that does not fit into the padded input, and for values that are too large to
// address.
ConvGeometry make_geometry(const ConvShape& shape, int64_t batch, int64_t height, int64_t width);
// The same product with all pixels in one row where both axes are plain(); otherwise as it is.
ConvGeometry flattened(const ConvGeometry& geometry);

// What a run of activations holds: one tap, a row of taps, whose pixels lie side by side in NHWC, or a copy of all of them.
enum class ConvRun { tap, row, patch };
const char* run_name(ConvRun run);
ConvRun run_named(const std::string& name);  // throws std::invalid_argument
ConvRun run_of(const WeightShape& weights);

// The form in which weights [n, kernel height, kernel width, channels / groups] are packed for such runs.
WeightShape weight_shape(const ConvShape& shape, ConvRun run);
// The runs that serve a form best: the longer they are, the fewer there are, with less padding inside. Images of few channels
// are worth copying where that saves steps; elsewhere only what crosses the image's border is copied. The dense form holds the
// taps of a grouped convolution one by one, and where all groups' channels are many, the copies at the border cost more than
// longer runs gain.
ConvRun choose_run(const ConvShape& shape, Type type, Form form);

}  // namespace openwork
