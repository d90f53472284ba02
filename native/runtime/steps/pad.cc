// Images with a border of one number, as a step of a program.
#include <algorithm>
#include <cmath>

#include "runtime/steps/image.h"

namespace openwork {

namespace {

constexpr size_t kAxes = 3;

struct Border {
  std::array<int64_t, 2 * kAxes> pads{};  // height, width, channels: before each, then behind each
  float value = 0.0f;
  bool bytes = false;

  std::vector<int64_t> made(const std::vector<int64_t>& x) const {
    std::vector<int64_t> y = x;
    for (size_t i = 0; i < kAxes; ++i)
      if (y[i + 1] > 0) y[i + 1] += pads[i] + pads[i + kAxes];
    return y;
  }
};

using Dims = std::vector<int64_t>;

// A line of the image into one of the output: pixel by pixel where channels are added, else in one piece.
template <class T>
void pad_line(const Border& border, const Dims& x, const Dims& y, const T* from, T* to) {
  const auto value = static_cast<T>(border.value);
  const bool whole = x[3] == y[3];
  const int64_t pieces = whole ? 1 : x[2], piece = whole ? x[2] * x[3] : x[3];
  T* at = std::fill_n(to, border.pads[1] * y[3], value);
  for (int64_t i = 0; i < pieces; ++i, from += piece) {
    at = std::copy_n(from, piece, std::fill_n(at, border.pads[2], value));
    at = std::fill_n(at, border.pads[2 + kAxes], value);
  }
  std::fill_n(at, border.pads[1 + kAxes] * y[3], value);
}

template <class T>
void pad_lines(const Border& border, const Dims& x, const Dims& y, const T* from, T* to, const Part& part) {
  const int64_t line = y[2] * y[3];
  for (int64_t unit = part.begin; unit < part.end; ++unit) {
    const int64_t row = unit % y[1] - border.pads[0];
    if (row >= 0 && row < x[1])
      pad_line(border, x, y, from + (unit / y[1] * x[1] + row) * x[2] * x[3], to + unit * line);
    else
      std::fill_n(to + unit * line, line, static_cast<T>(border.value));
  }
}

Border read_border(const StepContext& c, DType dtype) {
  Border border;
  border.pads = c.list<2 * kAxes>("pads");
  for (const int64_t pad : border.pads) c.expect(pad >= 0, "expected pads of at least 0, found " + std::to_string(pad) + ".");
  border.value = c.number("value");
  border.bytes = dtype == DType::u8;
  const bool byte = border.value >= 0 && border.value <= 255 && border.value == std::floor(border.value);
  c.expect(!border.bytes || byte,
           "expected an integer from 0 to 255 as the value of an image of u8, found " + std::to_string(border.value) + ".");
  return border;
}

}  // namespace

Step make_pad(const StepContext& c) {
  const Operand x = read_image(c, "x", {DType::u8, DType::f32});
  const Operand y = c.output("y", {x.dtype()}).ranked(4, "[batch, height, width, channels]");
  const Border border = read_border(c, x.dtype());
  std::vector<int64_t> expected = border.made(x.dims());
  for (size_t i = 1; i < expected.size(); ++i)
    if (x.dims()[i] < 0) expected[i] = y.dims()[i];
  y.shaped(expected);
  Step step{c.name(), {x.id}, {y.id}, [border, x = x.id, y = y.id](const Sizes& sizes) {
    const auto in = sizes.dims[static_cast<size_t>(x)], out = sizes.dims[static_cast<size_t>(y)];
    Work work;
    work.units = out[0] * out[1];
    work.chunk = even_chunk(work.units, sizes.threads);
    work.run = [border, in, out, x, y](const Buffers& b, const Part& part) {
      if (border.bytes) pad_lines(border, in, out, b.get<const uint8_t>(x), b.get<uint8_t>(y), part);
      else pad_lines(border, in, out, b.get<const float>(x), b.get<float>(y), part);
    };
    return work;
  }};
  step.shapes = [border](const Shapes& reads) -> Shapes { return {border.made(reads[0])}; };
  return step;
}

}  // namespace openwork
